// That no wait of the daemon depends on the wall clock: in a child process the kernel refuses every
// futex that does, by ending it.
#include "absl/synchronization/mutex.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <future>
#include <thread>

#include "gtest/gtest.h"
#include "platform/mutex.h"

namespace {

using std::chrono::milliseconds;

// From now on a futex with FUTEX_CLOCK_REALTIME and a time-out ends this process by SIGSYS, in any
// thread. Without a time-out the clock does not matter; glibc names it all the same.
void ForbidWallClockWaits() {
  constexpr size_t kTimeout = offsetof(seccomp_data, args[3]);  // a pointer, read by halves
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 0, 7),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1])),
      BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, FUTEX_CLOCK_REALTIME, 0, 5),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kTimeout),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kTimeout + 4),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{sizeof program / sizeof program[0], program};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
      prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
    _exit(2);
  }
}

template <typename Body>
void ExpectWithoutWallClock(Body body) {
  EXPECT_EXIT((ForbidWallClockWaits(), body(), _exit(0)), testing::ExitedWithCode(0), "");
}

void WaitByWallClock() {
  const timespec until{1, 0};
  int32_t word = 0;
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &until, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}

TEST(SteadyWaitsTest, TheWallClockIsReallyForbidden) {
  EXPECT_EXIT((ForbidWallClockWaits(), WaitByWallClock(), _exit(0)),
              testing::KilledBySignal(SIGSYS), "");
}

TEST(SteadyWaitsTest, AbslMutexTimesOutBySteadyClock) {
  ExpectWithoutWallClock([] {
    absl::Mutex mutex;
    bool never = false;
    const auto begun = std::chrono::steady_clock::now();
    absl::MutexLock lock(&mutex);
    if (mutex.AwaitWithTimeout(absl::Condition(&never), absl::Milliseconds(20))) _exit(3);
    if (std::chrono::steady_clock::now() - begun < milliseconds(20)) _exit(4);
  });
}

TEST(SteadyWaitsTest, AbslCondVarTimesOutBySteadyClock) {
  ExpectWithoutWallClock([] {
    absl::Mutex mutex;
    absl::CondVar changed;
    absl::MutexLock lock(&mutex);
    if (!changed.WaitWithTimeout(&mutex, absl::Milliseconds(20))) _exit(3);
  });
}

TEST(SteadyWaitsTest, AbslMutexIsWokenAcrossThreads) {
  ExpectWithoutWallClock([] {
    absl::Mutex mutex;
    int turn = 0;
    const auto play = [&](int mine) {
      for (int round = 0; round < 1000; ++round) {
        absl::MutexLock lock(&mutex);
        const auto my_turn = [&] { return turn % 2 == mine; };
        if (round % 2 == 0) {
          mutex.Await(absl::Condition(&my_turn));
        } else if (!mutex.AwaitWithTimeout(absl::Condition(&my_turn), absl::Seconds(60))) {
          _exit(3);
        }
        ++turn;
      }
    };
    std::thread other([&] { play(1); });
    play(0);
    other.join();
    if (turn != 2000) _exit(4);
  });
}

#if !defined(__SANITIZE_THREAD__)  // mutex.h: there it has to be the wall clock
TEST(SteadyWaitsTest, OurOwnCondVarTimesOutBySteadyClock) {
  ExpectWithoutWallClock([] {
    postcopy::Mutex mutex;
    postcopy::CondVar changed;
    postcopy::MutexLock lock(mutex);
    if (changed.WaitFor(mutex, milliseconds(20))) _exit(3);
  });
}

#endif

TEST(SteadyWaitsTest, AFutureTimesOutBySteadyClock) {
  ExpectWithoutWallClock([] {
    std::promise<int> promise;
    if (promise.get_future().wait_for(milliseconds(20)) != std::future_status::timeout) _exit(3);
  });
}

}  // namespace
