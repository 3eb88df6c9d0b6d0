#include "platform/waiter.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace postcopy {

Result<Waiter> Waiter::Create() {
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return ErrnoError(errno, "create eventfd");
  return Waiter(std::move(event));
}

Waiter::Woken Waiter::Wait(int descriptor, std::chrono::milliseconds timeout) {
  pollfd fds[2] = {{descriptor, POLLIN, 0}, {event_.get(), POLLIN, 0}};
  int ready;
  do {
    ready = poll(fds, 2, static_cast<int>(timeout.count()));
  } while (ready < 0 && errno == EINTR);
  if (ready == 0) return Woken::kTimeout;
  if (fds[1].revents != 0) {
    uint64_t count;
    [[maybe_unused]] const ssize_t consumed = read(event_.get(), &count, sizeof count);
    return Woken::kWakeUp;
  }
  return Woken::kReadable;
}

void Waiter::WakeUp() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof one);
}

}  // namespace postcopy
