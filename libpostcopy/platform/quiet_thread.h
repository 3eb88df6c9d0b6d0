// A thread for use inside a program that is not ours: every signal is blocked in it from its first
// instruction, so that the program's own handling of signals (signalfd, SIGIPI…) does not change.
//
// Not responsible for ending it: the body returns by itself.
#pragma once

#include <functional>
#include <string>

#include "core/result.h"

namespace postcopy {

class QuietThread {
 public:
  // `name` is what ps and top show, at most 15 bytes. `body` must not throw. kIo: the system can't
  // make a thread.
  static Result<QuietThread> Start(const std::string& name, std::function<void()> body);

  QuietThread(QuietThread&& other) noexcept;
  QuietThread& operator=(QuietThread&& other) = delete;
  // REQUIRES: joined.
  ~QuietThread();

  // Blocks until the body has returned. Not from the thread itself.
  void Join();

 private:
  QuietThread() = default;
  unsigned long thread_ = 0;  // pthread_t
  bool joinable_ = false;
};

}  // namespace postcopy
