// Tells ThreadSanitizer what absl::Mutex orders. Debian's abseil is a shared library that was built
// without the sanitizer, so it sees neither the lock nor the unlock and reports every access under
// one as a race. Linked into tests of that build only, by --wrap; see cmake/PostcopyTargets.cmake.
//
// abseil evaluates the conditions of waiting threads in whatever thread unlocks, while it holds the
// mutex; accesses made there are ordered by the mutex and are not looked at.
#include "absl/synchronization/mutex.h"

#define POSTCOPY_REAL(name) __real_##name
#define POSTCOPY_WRAP(name) __attribute__((visibility("default"))) __wrap_##name

extern "C" {

void __tsan_acquire(void* object);
void __tsan_release(void* object);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);

// spdlog is not instrumented either; it makes its registry on first use.
__attribute__((visibility("default"))) const char* __tsan_default_suppressions() { return "race:spdlog::\n"; }

}  // extern "C"

namespace {

class Unwatched {
 public:
  Unwatched() {
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Unwatched() {
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
};

}  // namespace

extern "C" {

void POSTCOPY_REAL(_ZN4absl7debian35Mutex4LockEv)(absl::Mutex*);
void POSTCOPY_WRAP(_ZN4absl7debian35Mutex4LockEv)(absl::Mutex* mutex) {
  {
    const Unwatched unwatched;
    POSTCOPY_REAL(_ZN4absl7debian35Mutex4LockEv)(mutex);
  }
  __tsan_acquire(mutex);
}

void POSTCOPY_REAL(_ZN4absl7debian35Mutex6UnlockEv)(absl::Mutex*);
void POSTCOPY_WRAP(_ZN4absl7debian35Mutex6UnlockEv)(absl::Mutex* mutex) {
  __tsan_release(mutex);
  const Unwatched unwatched;
  POSTCOPY_REAL(_ZN4absl7debian35Mutex6UnlockEv)(mutex);
}

void POSTCOPY_REAL(_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE)(absl::Mutex*,
                                                                   const absl::Condition&);
void POSTCOPY_WRAP(_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE)(
    absl::Mutex* mutex, const absl::Condition& condition) {
  __tsan_release(mutex);
  {
    const Unwatched unwatched;
    POSTCOPY_REAL(_ZN4absl7debian35Mutex5AwaitERKNS0_9ConditionE)(mutex, condition);
  }
  __tsan_acquire(mutex);
}

bool POSTCOPY_REAL(_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)(
    absl::Mutex*, const absl::Condition&, absl::Duration);
bool POSTCOPY_WRAP(_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)(
    absl::Mutex* mutex, const absl::Condition& condition, absl::Duration timeout) {
  bool holds;
  __tsan_release(mutex);
  {
    const Unwatched unwatched;
    holds = POSTCOPY_REAL(_ZN4absl7debian35Mutex16AwaitWithTimeoutERKNS0_9ConditionENS0_8DurationE)(
        mutex, condition, timeout);
  }
  __tsan_acquire(mutex);
  return holds;
}

}  // extern "C"
