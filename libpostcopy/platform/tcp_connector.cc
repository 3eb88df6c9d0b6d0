#include "platform/tcp_connector.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

namespace postcopy {
namespace {

using Clock = std::chrono::steady_clock;

struct Attempt {
  UniqueFd socket;
  size_t endpoint;
  Clock::time_point begun;
};

int MillisecondsUntil(Clock::time_point when) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(when - Clock::now());
  return static_cast<int>(std::max<std::chrono::milliseconds::rep>(left.count(), 0));
}

}  // namespace

Result<TcpConnector> TcpConnector::Create(std::vector<TcpEndpoint> endpoints) {
  UniqueFd stopped(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!stopped.valid()) return ErrnoError(errno, "create eventfd");
  return TcpConnector(std::move(endpoints), std::move(stopped));
}

Result<TcpConnector::Connected> TcpConnector::Connect(std::chrono::milliseconds timeout,
                                                      size_t first, bool once) {
  const auto deadline = Clock::now() + timeout;
  auto next_attempt = Clock::now();
  auto last_in_time = next_attempt - kAttemptEvery;  // when an attempt was last made in its time
  std::vector<Attempt> attempts;
  size_t begun = 0;
  size_t at_once = 0;  // attempts since the last one that had waited for its time
  Error cause{ErrorCode::kTimeout, "connect tcp://" + endpoints_[first].text + ": no answer"};
  const auto note_refusal = [&](const Error& error) {
    cause = error;
    if (++at_once < endpoints_.size()) next_attempt = Clock::now();
  };
  for (;;) {
    const auto now = Clock::now();
    std::erase_if(attempts, [&](const Attempt& each) { return now - each.begun >= kAttemptTime; });
    const bool all_tried = once && begun == endpoints_.size();
    if (now >= deadline || (all_tried && attempts.empty())) return cause;
    if (now >= next_attempt && !all_tried) {
      const size_t endpoint = (first + begun++) % endpoints_.size();
      if (now - last_in_time >= kAttemptEvery) {
        last_in_time = now;
        at_once = 0;
      }
      next_attempt = now + kAttemptEvery;
      auto socket = BeginConnect(endpoints_[endpoint]);
      if (socket.ok()) {
        attempts.push_back({std::move(*socket), endpoint, now});
      } else {
        note_refusal(socket.error());
      }
    }
    std::vector<pollfd> waiting = {{stopped_.get(), POLLIN, 0}};
    for (const Attempt& each : attempts) waiting.push_back({each.socket.get(), POLLOUT, 0});
    const auto look_at = std::min({deadline, now + kAttemptTime, all_tried ? deadline : next_attempt});
    if (poll(waiting.data(), waiting.size(), MillisecondsUntil(look_at)) <= 0) continue;
    if (waiting[0].revents != 0) return Error{ErrorCode::kUnavailable, "connect: given up"};
    for (size_t i = attempts.size(); i > 0; --i) {
      if (waiting[i].revents == 0) continue;
      Attempt& attempt = attempts[i - 1];
      const TcpEndpoint& endpoint = endpoints_[attempt.endpoint];
      const auto connected = FinishConnect(attempt.socket.get(), endpoint);
      if (connected.ok()) {
        return Connected{std::move(attempt.socket), endpoint.text, attempt.endpoint};
      }
      note_refusal(connected.error());
      attempts.erase(attempts.begin() + static_cast<ptrdiff_t>(i - 1));
    }
  }
}

void TcpConnector::Stop() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stopped_.get(), &one, sizeof one);
}

}  // namespace postcopy
