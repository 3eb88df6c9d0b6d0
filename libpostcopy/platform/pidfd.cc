#include "platform/pidfd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>
#include <utility>

namespace postcopy {

Result<Pidfd> Pidfd::Open(int pid) {
  Pidfd process;
  process.fd_.Reset(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));  // always close-on-exec
  if (!process.valid()) return ErrnoError(errno, "hold process " + std::to_string(pid));
  process.pid_ = pid;
  return process;
}

Pidfd Pidfd::Of(UniqueFd fd, int pid) {
  Pidfd process;
  process.fd_ = std::move(fd);
  process.pid_ = pid;
  return process;
}

Pidfd Pidfd::OfEnded(int pid) {
  Pidfd ended;
  ended.pid_ = pid;
  return ended;
}

Result<Pidfd> Pidfd::Duplicate() const {
  Pidfd copy;
  copy.fd_.Reset(fcntl(fd_.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy.valid()) return ErrnoError(errno, "duplicate hold of process " + std::to_string(pid_));
  copy.pid_ = pid_;
  return copy;
}

Result<void> Pidfd::Kill() const {
  if (syscall(SYS_pidfd_send_signal, fd_.get(), SIGKILL, nullptr, 0) == 0 || errno == ESRCH) {
    return {};
  }
  return ErrnoError(errno, "kill process " + std::to_string(pid_));
}

bool Pidfd::HasEnded() const { return WaitEnded(std::chrono::milliseconds(0)); }

bool Pidfd::WaitEnded(std::chrono::milliseconds timeout) const {
  if (!valid()) return true;
  using Clock = std::chrono::steady_clock;
  const Clock::time_point deadline = Clock::now() + timeout;
  pollfd ended{fd_.get(), POLLIN, 0};
  for (;;) {
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    const int result = poll(&ended, 1, static_cast<int>(std::max<int64_t>(left, 0)));
    if (result > 0) return true;
    if (result == 0 || errno != EINTR) return false;
  }
}

}  // namespace postcopy
