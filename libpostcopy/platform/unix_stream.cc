#include "platform/unix_stream.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

enum class Readiness { kReady, kTimedOut, kFailed };

Readiness WaitReady(int socket, short what, bool for_ever, steady_clock::time_point deadline) {
  for (;;) {
    int wait_ms = -1;
    if (!for_ever) {
      const auto left = std::chrono::ceil<milliseconds>(deadline - steady_clock::now());
      wait_ms = left.count() > 0 ? static_cast<int>(left.count()) : 0;
    }
    pollfd entry = {.fd = socket, .events = what, .revents = 0};
    const int ready = ::poll(&entry, 1, wait_ms);
    if (ready > 0) return Readiness::kReady;
    if (ready == 0) return Readiness::kTimedOut;
    if (errno != EINTR) return Readiness::kFailed;
  }
}

bool MeansClosed(int error) { return error == EPIPE || error == ECONNRESET; }

// One sendmsg() that does not wait; the result of the system call.
ssize_t SendSome(int socket, std::string_view bytes, int passed_fd) {
  iovec part = {.iov_base = const_cast<char*>(bytes.data()), .iov_len = bytes.size()};
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  if (passed_fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &passed_fd, sizeof(int));
  }
  return ::sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

}  // namespace

Result<UniqueFd> ConnectUnixStream(const std::string& path, milliseconds timeout) {
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return Error{ErrorCode::kInvalidArgument, "connect " + path + ": path is empty or too long"};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  const int waiting = timeout > milliseconds::zero() ? 0 : SOCK_NONBLOCK;
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | waiting, 0));
  if (!socket.valid()) return ErrnoError(errno, "socket unix");
  // For a Unix socket SO_SNDTIMEO also limits connect(), which waits while the backlog is full.
  const auto whole_seconds = std::chrono::duration_cast<std::chrono::seconds>(timeout);
  timeval limit = {};
  limit.tv_sec = whole_seconds.count();
  limit.tv_usec = std::chrono::microseconds(timeout - whole_seconds).count();
  if (::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) != 0) {
    return ErrnoError(errno, "setsockopt SO_SNDTIMEO");
  }
  int result;
  do {
    result = ::connect(socket.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address));
  } while (result != 0 && errno == EINTR);
  if (result != 0) {
    return ErrnoError(errno == EAGAIN ? ETIMEDOUT : errno, "connect " + path);
  }
  return socket;
}

Result<std::pair<UniqueFd, UniqueFd>> MakeStreamPair() {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    return ErrnoError(errno, "socketpair");
  }
  return std::pair(UniqueFd(ends[0]), UniqueFd(ends[1]));
}

Result<int> PeerProcess(int socket) {
  ucred peer = {};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return ErrnoError(errno, "getsockopt SO_PEERCRED");
  }
  return static_cast<int>(peer.pid);
}

StreamResult SendBytes(int socket, std::string_view bytes, int passed_fd, milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t count = SendSome(socket, bytes.substr(sent), sent == 0 ? passed_fd : -1);
    if (count > 0) {
      sent += static_cast<size_t>(count);
      continue;
    }
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno != EAGAIN) {
      return {MeansClosed(errno) ? StreamOutcome::kClosed : StreamOutcome::kFailed, sent, errno};
    }
    switch (WaitReady(socket, POLLOUT, false, deadline)) {
      case Readiness::kReady: break;
      case Readiness::kTimedOut: return {StreamOutcome::kTimedOut, sent, 0};
      case Readiness::kFailed: return {StreamOutcome::kFailed, sent, errno};
    }
  }
  return {StreamOutcome::kDone, sent, 0};
}

StreamResult ReceiveBytes(int socket, std::span<char> buffer, milliseconds timeout) {
  const bool for_ever = timeout < milliseconds::zero();
  const auto deadline = steady_clock::now() + (for_ever ? milliseconds::zero() : timeout);
  for (;;) {
    switch (WaitReady(socket, POLLIN, for_ever, deadline)) {
      case Readiness::kReady: break;
      case Readiness::kTimedOut: return {StreamOutcome::kTimedOut, 0, 0};
      case Readiness::kFailed: return {StreamOutcome::kFailed, 0, errno};
    }
    const ssize_t count = ::recv(socket, buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (count > 0) return {StreamOutcome::kDone, static_cast<size_t>(count), 0};
    if (count == 0) return {StreamOutcome::kClosed, 0, 0};
    if (errno == EINTR || errno == EAGAIN) continue;
    return {MeansClosed(errno) ? StreamOutcome::kClosed : StreamOutcome::kFailed, 0, errno};
  }
}

void ShutDown(int socket, StreamDirection direction) {
  ::shutdown(socket, direction == StreamDirection::kSend ? SHUT_WR : SHUT_RDWR);
}

}  // namespace postcopy
