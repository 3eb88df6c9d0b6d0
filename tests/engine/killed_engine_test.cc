// Engines that are killed at any moment, one after the other, over memory that is used meanwhile:
// no byte is lost, none of what the guest has written, and nobody waits for ever.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <random>
#include <thread>

#include "engine/keepsake.h"
#include "gtest/gtest.h"
#include "tests/engine/memory_fixture.h"

extern char** environ;

namespace postcopy {
namespace {

constexpr uint64_t kPages = 3 * 8192;
constexpr int kKills = 25;

// A copy of a descriptor that a program inherits.
int Inherited(int fd) { return fd < 0 ? -1 : fcntl(fd, F_DUPFD, 3); }

// One run of the program that stands for a daemon.
class Daemon {
 public:
  Daemon(int userfault, int keepsake, int ram_file) {
    const int fds[] = {Inherited(userfault), Inherited(keepsake), Inherited(ram_file)};
    std::vector<std::string> words = {POSTCOPY_ARRIVAL_DAEMON};
    for (const int fd : fds) words.push_back(std::to_string(fd));
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], nullptr, nullptr, argv.data(), environ), 0);
    for (const int fd : fds) {
      if (fd >= 0) close(fd);
    }
  }
  // Kills it after so long; false: it had ended, with status 0, before.
  bool KillAfter(std::chrono::microseconds time) {
    std::this_thread::sleep_for(time);
    kill(pid_, SIGKILL);
    return Wait() != 0;
  }
  // Its exit status, or minus the signal that ended it.
  int Wait() {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  pid_t pid_ = 0;
};

class KilledEngineTest : public testing::TestWithParam<Backing> {};

INSTANTIATE_TEST_SUITE_P(Backings, KilledEngineTest,
                         testing::Values(Backing::kFile, Backing::kFileAllocated,
                                         Backing::kAnonymous),
                         [](const auto& instance) {
                           switch (instance.param) {
                             case Backing::kFile:
                               return "File";
                             case Backing::kFileAllocated:
                               return "FileAllocated";
                             case Backing::kAnonymous:
                               return "Anonymous";
                           }
                           return "";
                         });

TEST_P(KilledEngineTest, LosesNoByteNoWriteAndNoWaiter) {
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, GetParam());
  const MappedRegion region = memory.region();
  auto keepsake = Keepsake::Make({source.session(),
                                  {{{"ram", region.size_bytes}, region.address}},
                                  source.server().addresses()});
  ASSERT_TRUE(keepsake.ok()) << keepsake.error().message;
  if (GetParam() == Backing::kFileAllocated) {
    const MemoryLayout layout = keepsake->layout();
    PageMap(layout, keepsake->page_bytes()).MarkAllocated({0}, {{0}, kPages});
  }

  // The guest: each thread has pages of its own, reads what must be there and writes over it.
  std::vector<std::byte> expected = source.content();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> wrong{0};
  std::vector<std::thread> guest;
  for (uint64_t self = 0; self < 2; ++self) {
    guest.emplace_back([&, self] {
      std::mt19937_64 random(self);
      while (!stop.load()) {
        const uint64_t offset =
            (random() % (kPages / 2) * 2 + self) * kPageBytes + random() % kPageBytes;
        volatile std::byte* const at = memory.memory() + offset;
        if (*at != expected[offset]) ++wrong;
        *at = expected[offset] = static_cast<std::byte>(random());
        if (random() % 64 == 0) std::this_thread::sleep_for(std::chrono::microseconds(100));
      }
    });
  }

  std::mt19937 random(7);
  int kills = 0;
  bool arrived = false;
  for (; kills < kKills && !arrived; ++kills) {
    Daemon daemon(memory.userfault(), keepsake->memfd().get(), memory.file());
    arrived = !daemon.KillAfter(std::chrono::microseconds(2000 + random() % 20000));
  }
  EXPECT_GT(kills, 2) << "all came before anything could be killed";
  if (!arrived) {
    EXPECT_EQ(Daemon(memory.userfault(), keepsake->memfd().get(), memory.file()).Wait(), 0);
  }
  stop = true;
  for (std::thread& thread : guest) thread.join();
  EXPECT_EQ(wrong, 0u);
  EXPECT_EQ(std::memcmp(memory.memory(), expected.data(), expected.size()), 0);
}

}  // namespace
}  // namespace postcopy
