// One lane at the source: greets, then answers requests (urgent) or streams grants (bulk) until the
// connection ends. Runs on the caller's thread; reads the session's memory, writes the socket.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/page_server.h"
#include "wire/page_protocol.h"

namespace postcopy {

// Takes a lane that has greeted into its session; otherwise why not, in words for its peer.
using JoinSession =
    std::function<absl::StatusOr<std::shared_ptr<ServedSession>>(const wire::Hello&)>;

// Returns why the lane has ended, for the log; empty: the destination said goodbye.
std::string ServeLane(int socket, const JoinSession& join);

}  // namespace postcopy
