#include "platform/poll_set.h"

#include <poll.h>

#include <algorithm>
#include <limits>
#include <vector>

namespace postcopy {

struct PollSet::Descriptors {
  std::vector<pollfd> fds;
};

PollSet::PollSet() : descriptors_(std::make_unique<Descriptors>()) {}
PollSet::~PollSet() = default;

size_t PollSet::Add(int descriptor) {
  descriptors_->fds.push_back({descriptor, POLLIN, 0});
  return descriptors_->fds.size() - 1;
}

size_t PollSet::size() const { return descriptors_->fds.size(); }

void PollSet::Wait(std::optional<std::chrono::milliseconds> timeout) {
  constexpr std::chrono::milliseconds::rep kLongest = std::numeric_limits<int>::max();
  const int timeout_ms =
      timeout.has_value()
          ? static_cast<int>(std::clamp<std::chrono::milliseconds::rep>(timeout->count(), 0, kLongest))
          : -1;
  auto& fds = descriptors_->fds;
  if (poll(fds.data(), fds.size(), timeout_ms) < 0) {
    for (pollfd& fd : fds) fd.revents = 0;
  }
}

bool PollSet::readable(size_t place) const { return descriptors_->fds[place].revents != 0; }

}  // namespace postcopy
