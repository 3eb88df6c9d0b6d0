// Thin wrappers of TCP sockets: connect, listen, accept, send, receive. Each says what happened and
// decides nothing. EINTR is retried here. Sends never raise SIGPIPE.
//
// Addresses are as core/address.h takes them, with their port.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

// One address that a "host:port" stands for.
struct TcpEndpoint {
  std::string text;                // numeric, for messages
  std::vector<std::byte> address;  // a sockaddr
};
// All of them. Blocks while names are looked up.
Result<std::vector<TcpEndpoint>> ResolveTcp(const std::string& address);

// The address of this host, without a port, from which what it sends to `peer` leaves: where `peer`
// reaches this host, unless addresses are translated in between. Sends nothing. `ipv4`: only by IPv4.
// Blocks while names are looked up.
Result<std::string> LocalHostTowards(const std::string& peer, bool ipv4);
// A close-on-exec socket that has begun to connect; it can be written to when it has succeeded or
// failed: then FinishConnect() tells which, and makes it as ConnectTcp() does.
Result<UniqueFd> BeginConnect(const TcpEndpoint& endpoint);
Result<void> FinishConnect(int socket, const TcpEndpoint& endpoint);

// A connected, blocking, close-on-exec socket with TCP_NODELAY. Blocks at most `timeout`.
Result<UniqueFd> ConnectTcp(const std::string& address, std::chrono::milliseconds timeout);
// A listening socket. Port 0 chooses a free one: see LocalPort().
Result<UniqueFd> ListenTcp(const std::string& address);
Result<uint16_t> LocalPort(int socket);
// Waits for a connection. kUnavailable: the listener was shut down.
Result<UniqueFd> AcceptTcp(int listener, std::string& peer_address);

enum class SocketOutcome { kDone, kClosed, kTimedOut, kFailed };
struct SocketResult {
  SocketOutcome outcome = SocketOutcome::kFailed;
  size_t bytes = 0;
  int error = 0;
};
// Receives at least one byte; blocks. kClosed: the peer has ended the connection or Shutdown() was
// called here.
SocketResult Receive(int socket, std::span<std::byte> into);
// Sends everything, in one call to the kernel where it takes it: `first`, then `second`. Blocks.
SocketResult SendAll(int socket, std::span<const std::byte> first,
                     std::span<const std::byte> second = {});
// The same for many parts, in their order. Uses up `parts`. REQUIRES: at most kMaxSendParts.
inline constexpr size_t kMaxSendParts = 128;
SocketResult SendParts(int socket, std::span<std::span<const std::byte>> parts);
// Sends one small message if that takes no waiting; otherwise sends nothing that matters any more:
// for the last words on a connection that is about to be shut down.
void TrySend(int socket, std::span<const std::byte> message);
// Receive() gives up with kTimedOut after this long without a byte; zero: never.
void SetReceiveTimeout(int socket, std::chrono::milliseconds timeout);
// SendAll() and SendParts() fail after this long without progress; zero: never.
void SetSendTimeout(int socket, std::chrono::milliseconds timeout);
// Bytes that have come and were not received yet.
size_t ReadableBytes(int socket);
// The peer has ended the connection, and everything that it sent was received.
bool HasEnded(int socket);
// The kernel notices a dead peer after about 15 s without an answer.
void EnableKeepalive(int socket);
// Unblocks whoever receives or sends on it, in any thread.
// That the kernel has seen on it, in the last minutes; 0: none, or not a connection.
std::chrono::microseconds ShortestRoundTrip(int socket);
void Shutdown(int socket);

}  // namespace postcopy
