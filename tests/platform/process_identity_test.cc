#include "platform/process_identity.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

// A process with a name that looks like the rest of its line in /proc/<pid>/stat.
class Sleeper {
 public:
  Sleeper() : pid_(fork()) {
    if (pid_ == 0) {
      prctl(PR_SET_NAME, "a) S 1 (b) 2 3");
      for (;;) pause();
    }
  }
  ~Sleeper() { End(); }
  void Kill() const { kill(pid_, SIGKILL); }
  void End() {
    if (pid_ == 0) return;
    Kill();
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(ProcessIdentityTest, AProcessThatLivesIsKnown) {
  Sleeper sleeper;
  const auto identity = Identify(*Pidfd::Open(sleeper.pid()));
  ASSERT_TRUE(identity.ok()) << identity.error().message;
  EXPECT_EQ(identity->pid, sleeper.pid());
  EXPECT_GT(identity->started_ticks, 0u);
  EXPECT_EQ(identity->boot_id.size(), 36u);
  EXPECT_FALSE(HasEnded(*identity));
}

TEST(ProcessIdentityTest, OneThatHasEndedIsNamedAsSuch) {
  Sleeper sleeper;
  const Pidfd process = *Pidfd::Open(sleeper.pid());
  const auto identity = Identify(process);
  sleeper.Kill();
  ASSERT_TRUE(process.WaitEnded(std::chrono::seconds(10)));
  EXPECT_TRUE(HasEnded(*identity)) << "as a zombie";
  EXPECT_EQ(Identify(process).error().code, ErrorCode::kUnavailable);
  sleeper.End();
  EXPECT_TRUE(HasEnded(*identity));
}

// The number of this process, which lives, as that of another one.
TEST(ProcessIdentityTest, AnotherProcessOfTheNumberIsNotThatOne) {
  const auto self = Identify(*Pidfd::Open(getpid()));
  ProcessIdentity other = *self;
  other.started_ticks += 1;
  EXPECT_TRUE(HasEnded(other)) << "it began later";
  other = *self;
  other.boot_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_TRUE(HasEnded(other)) << "before the host was started again";
}

TEST(ProcessIdentityTest, WhatIsNotKnownIsNoEnd) {
  EXPECT_FALSE(HasEnded(ProcessIdentity{}));
  EXPECT_FALSE(HasEnded(ProcessIdentity{getpid(), 0, ""})) << "of an earlier version";
}

}  // namespace
}  // namespace postcopy
