// Makes every wait of absl::Mutex and absl::CondVar with a time-out, in the daemon and in what it
// links, one of the steady clock.
//
// abseil turns each time-out into a point of the wall clock and lets the kernel wait for that: on a
// host whose clock is set back by an hour a wait of 20 ms lasts an hour and 20 ms. abseil's own
// semaphore of a thread is a weak symbol, made to be replaced: this one measures once, when the
// wait begins, how long it is to last.
//
// Linked wherever uffd_server_core is (CMakeLists.txt names postcopy_steady_waits to the linker).
#include <time.h>

#include <atomic>
#include <chrono>
#include <new>
#include <optional>

#include "absl/base/internal/thread_identity.h"
#include "absl/synchronization/internal/per_thread_sem.h"
#include "absl/synchronization/internal/waiter.h"
#include "absl/time/clock.h"
#include "platform/futex.h"

namespace {

using absl::base_internal::ThreadIdentity;
using absl::synchronization_internal::KernelTimeout;
using SteadyClock = std::chrono::steady_clock;

// Posts to a thread that it has not taken, where abseil's own semaphore has the same number: abseil
// sets it to zero when it makes the thread's identity.
static_assert(ABSL_WAITER_MODE == ABSL_WAITER_MODE_FUTEX);
std::atomic<int32_t>& PostsOf(ThreadIdentity* identity) {
  static_assert(sizeof(identity->waiter_state.data) >= sizeof(std::atomic<int32_t>));
  return *std::launder(reinterpret_cast<std::atomic<int32_t>*>(identity->waiter_state.data));
}

std::chrono::nanoseconds Left(KernelTimeout timeout) {
  const timespec until = timeout.MakeAbsTimespec();
  return std::chrono::nanoseconds(absl::ToInt64Nanoseconds(absl::TimeFromTimespec(until) -
                                                           absl::Now()));
}

bool TakePost(std::atomic<int32_t>& posts) {
  int32_t count = posts.load(std::memory_order_relaxed);
  while (count != 0) {
    // Acquire: pairs with the release in Post.
    if (posts.compare_exchange_weak(count, count - 1, std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return false;
}

}  // namespace

extern "C" {

extern const int postcopy_steady_waits;
const int postcopy_steady_waits = 1;

__attribute__((visibility("default"))) void ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemPost)(
    ThreadIdentity* identity) {
  std::atomic<int32_t>& posts = PostsOf(identity);
  if (posts.fetch_add(1, std::memory_order_release) == 0) postcopy::FutexWakeOne(posts);
}

__attribute__((visibility("default"))) bool ABSL_INTERNAL_C_SYMBOL(AbslInternalPerThreadSemWait)(
    KernelTimeout timeout) {
  // Never null: abseil has made it before it waits.
  std::atomic<int32_t>& posts = PostsOf(absl::base_internal::CurrentThreadIdentityIfPresent());
  std::optional<SteadyClock::time_point> deadline;
  if (timeout.has_timeout()) deadline = SteadyClock::now() + Left(timeout);
  while (!TakePost(posts)) {
    std::optional<std::chrono::nanoseconds> left;
    if (deadline.has_value()) left = *deadline - SteadyClock::now();
    if (!postcopy::FutexWait(posts, 0, left)) return TakePost(posts);
  }
  return true;
}

}  // extern "C"
