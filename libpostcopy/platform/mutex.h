// A mutex that clang's thread-safety analysis understands, for the libraries that a VMM loads.
//
// The daemon's own folders use absl::Mutex. No I/O and no callback happens under either.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define POSTCOPY_TSA(x) __attribute__((x))
#else
#define POSTCOPY_TSA(x)
#endif
#define POSTCOPY_CAPABILITY(x) POSTCOPY_TSA(capability(x))
#define POSTCOPY_SCOPED_CAPABILITY POSTCOPY_TSA(scoped_lockable)
#define POSTCOPY_GUARDED_BY(x) POSTCOPY_TSA(guarded_by(x))
#define POSTCOPY_REQUIRES(...) POSTCOPY_TSA(requires_capability(__VA_ARGS__))
#define POSTCOPY_EXCLUDES(...) POSTCOPY_TSA(locks_excluded(__VA_ARGS__))
#define POSTCOPY_ACQUIRE(...) POSTCOPY_TSA(acquire_capability(__VA_ARGS__))
#define POSTCOPY_RELEASE(...) POSTCOPY_TSA(release_capability(__VA_ARGS__))

namespace postcopy {

class POSTCOPY_CAPABILITY("mutex") Mutex {
 public:
  void Lock() POSTCOPY_ACQUIRE() { mutex_.lock(); }
  void Unlock() POSTCOPY_RELEASE() { mutex_.unlock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

class POSTCOPY_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) POSTCOPY_ACQUIRE(mutex) : mutex_(mutex) { mutex_.Lock(); }
  ~MutexLock() POSTCOPY_RELEASE() { mutex_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

class CondVar {
 public:
  void Wait(Mutex& mutex) POSTCOPY_REQUIRES(mutex) {
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    condition_.wait(lock);
    lock.release();
  }
  // False when `timeout` has passed without a notification. Time that is set forward or back does
  // not count.
  bool WaitFor(Mutex& mutex, std::chrono::nanoseconds timeout) POSTCOPY_REQUIRES(mutex) {
#if defined(__SANITIZE_THREAD__)
    // ThreadSanitizer of gcc 12 does not know pthread_cond_clockwait(), which the steady clock needs.
    using Clock = std::chrono::system_clock;
#else
    using Clock = std::chrono::steady_clock;
#endif
    std::unique_lock<std::mutex> lock(mutex.mutex_, std::adopt_lock);
    const bool notified =
        condition_.wait_until(lock, Clock::now() + timeout) == std::cv_status::no_timeout;
    lock.release();
    return notified;
  }
  void NotifyAll() { condition_.notify_all(); }
  void NotifyOne() { condition_.notify_one(); }

 private:
  std::condition_variable condition_;
};

}  // namespace postcopy
