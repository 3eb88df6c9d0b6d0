#include "platform/futex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace postcopy {

static_assert(std::atomic<int32_t>::is_always_lock_free && sizeof(std::atomic<int32_t>) == 4);

bool FutexWait(std::atomic<int32_t>& word, int32_t expected,
               std::optional<std::chrono::nanoseconds> timeout) {
  timespec left{};
  if (timeout.has_value()) {
    if (*timeout <= std::chrono::nanoseconds::zero()) return false;
    left.tv_sec = timeout->count() / 1'000'000'000;
    left.tv_nsec = timeout->count() % 1'000'000'000;
  }
  // FUTEX_WAIT, unlike FUTEX_WAIT_BITSET, takes a duration, and measures it with CLOCK_MONOTONIC.
  const long result = syscall(SYS_futex, &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, expected,
                              timeout.has_value() ? &left : nullptr, nullptr, 0);
  return result == 0 || errno != ETIMEDOUT;
}

void FutexWakeOne(std::atomic<int32_t>& word) {
  syscall(SYS_futex, &word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr, 0);
}

}  // namespace postcopy
