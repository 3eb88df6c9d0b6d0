// Lets thread creation fail in this program when a test says so. Included by one file of a program.
#pragma once

#include <dlfcn.h>
#include <pthread.h>

#include <atomic>
#include <cerrno>

namespace postcopy {

// How many threads may be made from now on; negative: any number.
inline std::atomic<int> threads_left{-1};

}  // namespace postcopy

// A sanitizer's, if there is one: a thread made without it would be unknown to it.
extern "C" __attribute__((weak)) int __interceptor_pthread_create(pthread_t*, const pthread_attr_t*,
                                                                  void* (*)(void*), void*);

extern "C" __attribute__((visibility("default"))) int pthread_create(pthread_t* thread,
                                                                     const pthread_attr_t* attr,
                                                                     void* (*body)(void*),
                                                                     void* argument) noexcept {
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const auto create = &__interceptor_pthread_create != nullptr
                                 ? &__interceptor_pthread_create
                                 : reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  if (postcopy::threads_left >= 0 && postcopy::threads_left-- <= 0) {
    postcopy::threads_left = 0;
    return EAGAIN;
  }
  return create(thread, attr, body, argument);
}
