// One lane at the source: greets, then answers requests (urgent) or streams grants (bulk) until the
// connection ends. Runs on the caller's thread; reads the session's memory, writes the socket.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "core/session_id.h"
#include "server/page_server.h"

namespace postcopy {

// Finds the session of a greeting; nullptr: there is none.
using FindSession = std::function<std::shared_ptr<ServedSession>(const SessionId&)>;

// Returns why the lane has ended, for the log; empty: the destination said goodbye.
std::string ServeLane(int socket, const FindSession& find);

}  // namespace postcopy
