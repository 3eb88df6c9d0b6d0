// Thin wrappers of connected Unix stream sockets: connect, send, receive, each with a time limit.
//
// A call says what happened and decides nothing; EINTR is retried here. Frames, lines and protocols
// are the callers'. Two threads may use one socket at a time if one only sends and the other only
// receives; ShutDown() may be called from any thread and ends what waits.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

// Connects to the listening socket at `path`; close-on-exec. kTimeout: its backlog stayed full that
// long (zero: was full). kUnavailable: no process listens there. kNotFound: no such path.
Result<UniqueFd> ConnectUnixStream(const std::string& path, std::chrono::milliseconds timeout);

// Two connected sockets, both close-on-exec.
Result<std::pair<UniqueFd, UniqueFd>> MakeStreamPair();

// The process that called listen() for the other end, or made the pair. As seen from this pid
// namespace; 0 if it has no number there.
Result<int> PeerProcess(int socket);

enum class StreamOutcome {
  kDone,
  kTimedOut,  // `bytes` were transferred before
  kClosed,    // the peer has closed (when sending: also reset); `bytes` were transferred before
  kFailed,    // `error` holds errno
};
struct StreamResult {
  StreamOutcome outcome = StreamOutcome::kFailed;
  size_t bytes = 0;
  int error = 0;
};

// Sends all of `bytes` within `timeout`, never raises SIGPIPE. `passed_fd` >= 0 goes along with the
// first byte by SCM_RIGHTS and stays the caller's.
StreamResult SendBytes(int socket, std::string_view bytes, int passed_fd,
                       std::chrono::milliseconds timeout);

// Waits until something is there, or `timeout` has passed (negative: for ever), and reads what
// there is, at most buffer.size(). Descriptors that come along are not received.
StreamResult ReceiveBytes(int socket, std::span<char> buffer, std::chrono::milliseconds timeout);

enum class StreamDirection { kSend, kBoth };
// kSend: the peer reads what was sent, then end of stream. kBoth: nothing is transferred any more,
// and a receive that waits returns kClosed.
void ShutDown(int socket, StreamDirection direction);

}  // namespace postcopy
