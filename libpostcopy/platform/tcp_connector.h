// Connects to whichever of several endpoints answers first, and tries again for as long as it takes.
//
// An attempt on a link that is down is repeated by the kernel after 1, 3, 7 … seconds, so one that began
// while the link was down may come seconds after it is back. Here a new attempt begins every
// kAttemptEvery, at the next endpoint, while earlier ones go on for kAttemptTime: so a peer that is
// farther away than kAttemptEvery is reached all the same. The idea is that of RFC 8305 ("Happy
// Eyeballs"), section 5. Where one endpoint refuses, the next is tried at once.
//
// For one thread, but for Stop().
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "core/result.h"
#include "platform/tcp_socket.h"
#include "platform/unique_fd.h"

namespace postcopy {

class TcpConnector {
 public:
  static constexpr std::chrono::milliseconds kAttemptEvery{100};
  static constexpr std::chrono::milliseconds kAttemptTime{2000};

  // REQUIRES: there is an endpoint. Fails if no descriptor can be had.
  static Result<TcpConnector> Create(std::vector<TcpEndpoint> endpoints);

  // A socket as of ConnectTcp(), and where it leads; endpoint number `first` is tried first. Blocks until there is one, `timeout` has passed
  // (then the cause is that of the last attempt that failed) or Stop() was called (kUnavailable). `once`:
  // an endpoint that refuses is not tried again. Attempts that have not ended are given up when it
  // returns.
  struct Connected {
    UniqueFd socket;
    std::string address;  // numeric
    size_t endpoint = 0;  // its number
  };
  Result<Connected> Connect(std::chrono::milliseconds timeout, size_t first = 0, bool once = false);
  size_t count_endpoints() const { return endpoints_.size(); }
  // Ends Connect(), now and ever after. From any thread.
  void Stop();

 private:
  TcpConnector(std::vector<TcpEndpoint> endpoints, UniqueFd stopped)
      : endpoints_(std::move(endpoints)), stopped_(std::move(stopped)) {}

  std::vector<TcpEndpoint> endpoints_;
  UniqueFd stopped_;  // an eventfd that can be read once Stop() was called
};

}  // namespace postcopy
