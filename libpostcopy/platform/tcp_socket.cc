#include "platform/tcp_socket.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>

#include "core/address.h"

namespace postcopy {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&freeaddrinfo)>;

Result<AddressList> Resolve(const Address& address, int flags) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = flags;
  addrinfo* found = nullptr;
  const std::string port = std::to_string(address.port());
  const int error = getaddrinfo(address.host().c_str(), port.c_str(), &hints, &found);
  if (error == EAI_NONAME) {
    return Error{ErrorCode::kNotFound, "unknown host name " + address.host()};
  }
  if (error != 0) {
    return Error{ErrorCode::kNotFound, "resolve " + address.host() + ": " + gai_strerror(error)};
  }
  return AddressList(found, &freeaddrinfo);
}

void SetInt(int socket, int level, int option, int value) {
  setsockopt(socket, level, option, &value, sizeof value);
}

// Who connects to a port of its own host on which nobody listens is, once in some ten thousand times,
// given just that port, and so connected to itself.
bool IsItsOwnPeer(int socket) {
  sockaddr_storage own{}, peer{};
  socklen_t own_size = sizeof own, peer_size = sizeof peer;
  return getsockname(socket, reinterpret_cast<sockaddr*>(&own), &own_size) == 0 &&
         getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &peer_size) == 0 &&
         own_size == peer_size && std::memcmp(&own, &peer, own_size) == 0;
}

std::string Describe(const sockaddr* address, socklen_t size) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (getnameinfo(address, size, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "unknown";
  }
  return address->sa_family == AF_INET6 ? "[" + std::string(host) + "]:" + port
                                        : std::string(host) + ":" + port;
}

}  // namespace

Result<std::vector<TcpEndpoint>> ResolveTcp(const std::string& address) {
  const auto parsed = Address::Parse(address, {});
  if (!parsed.ok()) return Error{parsed.error().code, "connect tcp://" + parsed.error().message};
  const auto list = Resolve(*parsed, AI_NUMERICSERV);
  if (!list.ok()) return list.error();
  std::vector<TcpEndpoint> endpoints;
  for (const addrinfo* at = list->get(); at != nullptr; at = at->ai_next) {
    const auto* bytes = reinterpret_cast<const std::byte*>(at->ai_addr);
    endpoints.push_back({Describe(at->ai_addr, at->ai_addrlen), {bytes, bytes + at->ai_addrlen}});
  }
  return endpoints;
}

Result<std::string> LocalHostTowards(const std::string& peer, bool ipv4) {
  const auto endpoints = ResolveTcp(peer);
  if (!endpoints.ok()) return endpoints.error();
  Error cause{ErrorCode::kUnavailable, "find this host's address towards " + peer +
                                           ": it has no IPv4 address"};
  for (const TcpEndpoint& endpoint : *endpoints) {
    sockaddr_storage address{};
    std::memcpy(&address, endpoint.address.data(), endpoint.address.size());
    if (ipv4 && address.ss_family != AF_INET) continue;
    socklen_t size = static_cast<socklen_t>(endpoint.address.size());
    // A datagram socket chooses its address when it connects, and sends nothing then.
    const UniqueFd socket(::socket(address.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    char host[NI_MAXHOST];
    if (socket.valid() &&
        connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0 &&
        getsockname(socket.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0 &&
        getnameinfo(reinterpret_cast<const sockaddr*>(&address), size, host, sizeof host, nullptr, 0,
                    NI_NUMERICHOST) == 0) {
      return std::string(host);
    }
    cause = ErrnoError(errno, "find this host's address towards " + endpoint.text);
  }
  return cause;
}

Result<UniqueFd> BeginConnect(const TcpEndpoint& endpoint) {
  sockaddr_storage address{};
  std::memcpy(&address, endpoint.address.data(), endpoint.address.size());
  const std::string what = "connect tcp://" + endpoint.text;
  UniqueFd socket(::socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return ErrnoError(errno, what);
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address),
              static_cast<socklen_t>(endpoint.address.size())) != 0 &&
      errno != EINPROGRESS) {
    return ErrnoError(errno, what);
  }
  return socket;
}

Result<void> FinishConnect(int socket, const TcpEndpoint& endpoint) {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error == 0 && IsItsOwnPeer(socket)) error = ECONNREFUSED;
  if (error != 0) return ErrnoError(error, "connect tcp://" + endpoint.text);
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
  SetInt(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  return {};
}

Result<UniqueFd> ConnectTcp(const std::string& address, std::chrono::milliseconds timeout) {
  const auto endpoints = ResolveTcp(address);
  if (!endpoints.ok()) return endpoints.error();
  Error cause = ErrnoError(EHOSTUNREACH, "connect tcp://" + address);
  for (const TcpEndpoint& endpoint : *endpoints) {
    auto socket = BeginConnect(endpoint);
    if (!socket.ok()) {
      cause = socket.error();
      continue;
    }
    pollfd waiting{socket->get(), POLLOUT, 0};
    int ready;
    do {
      ready = poll(&waiting, 1, static_cast<int>(timeout.count()));
    } while (ready < 0 && errno == EINTR);
    if (ready == 0) {
      cause = ErrnoError(ETIMEDOUT, "connect tcp://" + endpoint.text);
      continue;
    }
    const auto connected = FinishConnect(socket->get(), endpoint);
    if (connected.ok()) return socket;
    cause = connected.error();
  }
  return cause;
}

Result<UniqueFd> ListenTcp(const std::string& address) {
  const auto parsed = Address::Parse(address, {.default_port = {}, .may_listen = true});
  if (!parsed.ok()) return Error{parsed.error().code, "listen tcp://" + parsed.error().message};
  const auto list = Resolve(*parsed, AI_NUMERICSERV | AI_PASSIVE);
  if (!list.ok()) return list.error();
  const addrinfo& at = **list;
  UniqueFd socket(::socket(at.ai_family, at.ai_socktype | SOCK_CLOEXEC, at.ai_protocol));
  if (!socket.valid()) return ErrnoError(errno, "listen tcp://" + address);
  SetInt(socket.get(), SOL_SOCKET, SO_REUSEADDR, 1);
  if (bind(socket.get(), at.ai_addr, at.ai_addrlen) != 0 || listen(socket.get(), SOMAXCONN) != 0) {
    return ErrnoError(errno, "listen tcp://" + address);
  }
  return socket;
}

Result<uint16_t> LocalPort(int socket) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    return ErrnoError(errno, "read a socket's local address");
  }
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address, sizeof v6);
    return ntohs(v6.sin6_port);
  }
  sockaddr_in v4;
  std::memcpy(&v4, &address, sizeof v4);
  return ntohs(v4.sin_port);
}

Result<UniqueFd> AcceptTcp(int listener, std::string& peer_address) {
  sockaddr_storage address{};
  for (;;) {
    socklen_t size = sizeof address;
    UniqueFd socket(accept4(listener, reinterpret_cast<sockaddr*>(&address), &size, SOCK_CLOEXEC));
    if (socket.valid()) {
      SetInt(socket.get(), IPPROTO_TCP, TCP_NODELAY, 1);
      peer_address = Describe(reinterpret_cast<sockaddr*>(&address), size);
      return socket;
    }
    if (errno == EINTR || errno == ECONNABORTED) continue;
    if (errno == EINVAL) return Error{ErrorCode::kUnavailable, "accept: the listener was shut down"};
    return ErrnoError(errno, "accept");
  }
}

SocketResult Receive(int socket, std::span<std::byte> into) {
  ssize_t got;
  do {
    got = recv(socket, into.data(), into.size(), 0);
  } while (got < 0 && errno == EINTR);
  if (got > 0) return {SocketOutcome::kDone, static_cast<size_t>(got), 0};
  if (got == 0) return {SocketOutcome::kClosed, 0, 0};
  if (errno == EAGAIN) return {SocketOutcome::kTimedOut, 0, errno};
  return {errno == ECONNRESET ? SocketOutcome::kClosed : SocketOutcome::kFailed, 0, errno};
}

SocketResult SendAll(int socket, std::span<const std::byte> first,
                     std::span<const std::byte> second) {
  std::span<const std::byte> parts[] = {first, second};
  return SendParts(socket, parts);
}

SocketResult SendParts(int socket, std::span<std::span<const std::byte>> parts) {
  size_t sent = 0;
  for (;;) {
    while (!parts.empty() && parts.front().empty()) parts = parts.subspan(1);
    if (parts.empty()) return {SocketOutcome::kDone, sent, 0};
    iovec raw[kMaxSendParts];
    for (size_t i = 0; i < parts.size(); ++i) {
      raw[i] = {const_cast<std::byte*>(parts[i].data()), parts[i].size()};
    }
    msghdr message{};
    message.msg_iov = raw;
    message.msg_iovlen = parts.size();
    const ssize_t done = sendmsg(socket, &message, MSG_NOSIGNAL);
    if (done < 0) {
      if (errno == EINTR) continue;
      const bool closed = errno == EPIPE || errno == ECONNRESET;
      return {closed ? SocketOutcome::kClosed : SocketOutcome::kFailed, sent, errno};
    }
    sent += static_cast<size_t>(done);
    for (size_t left = static_cast<size_t>(done); left > 0;) {
      const size_t of_front = left < parts.front().size() ? left : parts.front().size();
      parts.front() = parts.front().subspan(of_front);
      left -= of_front;
      if (parts.front().empty()) parts = parts.subspan(1);
    }
  }
}

void TrySend(int socket, std::span<const std::byte> message) {
  send(socket, message.data(), message.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
}

void SetReceiveTimeout(int socket, std::chrono::milliseconds timeout) {
  const timeval value{timeout.count() / 1000, (timeout.count() % 1000) * 1000};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &value, sizeof value);
}

void SetSendTimeout(int socket, std::chrono::milliseconds timeout) {
  const timeval value{timeout.count() / 1000, (timeout.count() % 1000) * 1000};
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &value, sizeof value);
}

size_t ReadableBytes(int socket) {
  int bytes = 0;
  return ioctl(socket, FIONREAD, &bytes) == 0 ? static_cast<size_t>(bytes) : 0;
}

bool HasEnded(int socket) {
  char byte;
  return recv(socket, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

void EnableKeepalive(int socket) {
  SetInt(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  SetInt(socket, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  SetInt(socket, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  SetInt(socket, IPPROTO_TCP, TCP_KEEPCNT, 5);
  SetInt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 15000);
}

std::chrono::microseconds ShortestRoundTrip(int socket) {
  tcp_info info{};
  socklen_t size = sizeof info;
  constexpr uint32_t kNoneYet = ~uint32_t{0};
  if (getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0 ||
      size < offsetof(tcp_info, tcpi_min_rtt) + sizeof info.tcpi_min_rtt ||
      info.tcpi_min_rtt == kNoneYet) {
    return {};
  }
  return std::chrono::microseconds(info.tcpi_min_rtt);
}

void Shutdown(int socket) { shutdown(socket, SHUT_RDWR); }

}  // namespace postcopy
