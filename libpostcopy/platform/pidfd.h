// A process held by descriptor, so that its number can't come to mean another process.
//
// Not responsible for: reaping a child, or deciding who is killed. Needs Linux 5.3.
#pragma once

#include <chrono>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

class Pidfd {
 public:
  // Holds nothing.
  Pidfd() = default;
  // kUnavailable: no such process (any more).
  static Result<Pidfd> Open(int pid);

  // Of a descriptor that the kernel gave for process `pid`.
  static Pidfd Of(UniqueFd fd, int pid);

  // Of process `pid`, which is known to have ended: holds nothing.
  static Pidfd OfEnded(int pid);

  bool valid() const { return fd_.valid(); }
  // Becomes readable when the process has ended. Still owned by this object.
  int fd() const { return fd_.get(); }
  // The number the process was opened by; for log lines.
  int pid() const { return pid_; }

  // Another holder of the same process. REQUIRES: valid().
  Result<Pidfd> Duplicate() const;
  // Sends SIGKILL. REQUIRES: valid(). A process that has already ended is a success: it is not running.
  Result<void> Kill() const;
  // True once every thread of the process has ended (it may still be a zombie), and of what holds
  // nothing. Does not block.
  bool HasEnded() const;
  // Blocks until HasEnded(), at most `timeout`; false: still running then.
  bool WaitEnded(std::chrono::milliseconds timeout) const;

 private:
  UniqueFd fd_;
  int pid_ = 0;
};

}  // namespace postcopy
