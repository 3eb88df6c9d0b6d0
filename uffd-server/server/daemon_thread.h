// A thread of the daemon. The system may be unable to make one, which is an error like any other; and
// what its body throws (in practice: out of memory) does not end the daemon, which serves other VMs.
//
// Not responsible for ending it: the body returns by itself, once its owner has told it to.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "platform/quiet_thread.h"

namespace postcopy {

class DaemonThread {
 public:
  // None.
  DaemonThread() = default;
  // Runs `body` until it returns. When it throws, the cause is logged and it is run again after
  // `pause`: it must be able to continue from wherever it was. `name`: at most 15 bytes.
  // kResourceExhausted: the system can't make a thread.
  static absl::StatusOr<DaemonThread> Start(
      const std::string& name, std::function<void()> body,
      std::chrono::milliseconds pause = std::chrono::milliseconds(1'000));

  DaemonThread(DaemonThread&& other) noexcept = default;
  // REQUIRES: this one is none, or has been joined.
  DaemonThread& operator=(DaemonThread&& other) noexcept;
  // Joins.
  ~DaemonThread() { Join(); }

  // Blocks until the body has returned; does nothing if there is none. Not from the thread itself.
  void Join();

 private:
  std::optional<QuietThread> thread_;
};

}  // namespace postcopy
