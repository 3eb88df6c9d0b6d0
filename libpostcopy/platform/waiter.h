// Waits until one of two things can be read: a descriptor, or a wake-up from another thread.
#pragma once

#include <chrono>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

class Waiter {
 public:
  static Result<Waiter> Create();

  enum class Woken { kReadable, kWakeUp, kTimeout };
  // Blocks. A wake-up that came before is not lost; it is consumed by the call that reports it.
  // A negative timeout: for ever.
  Woken Wait(int descriptor, std::chrono::milliseconds timeout);
  // From any thread.
  void WakeUp();

 private:
  explicit Waiter(UniqueFd event) : event_(std::move(event)) {}
  UniqueFd event_;
};

}  // namespace postcopy
