#include "platform/pidfd.h"

#include <sys/wait.h>
#include <unistd.h>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

pid_t StartSleeper() {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  return child;
}

TEST(PidfdTest, AKilledProcessIsSeenDeadAndStaysDead) {
  const pid_t child = StartSleeper();
  auto process = Pidfd::Open(child);
  ASSERT_TRUE(process.ok()) << process.error().message;
  EXPECT_EQ(process->pid(), child);
  EXPECT_FALSE(process->HasEnded());
  EXPECT_FALSE(process->WaitEnded(std::chrono::milliseconds(1)));
  auto copy = process->Duplicate();
  ASSERT_TRUE(copy.ok());
  EXPECT_TRUE(process->Kill().ok());
  EXPECT_TRUE(process->WaitEnded(std::chrono::seconds(10)));
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(copy->HasEnded());
  EXPECT_TRUE(copy->Kill().ok()) << "a process that has ended is not running";
}

TEST(PidfdTest, AProcessThatIsGoneCannotBeHeld) {
  const pid_t child = StartSleeper();
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  EXPECT_EQ(Pidfd::Open(child).error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace postcopy
