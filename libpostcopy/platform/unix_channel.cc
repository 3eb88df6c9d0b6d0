#include "platform/unix_channel.h"

#include <fcntl.h>
#include <poll.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

namespace postcopy {
namespace {

// SO_PEERPIDFD of Linux 6.5, which Debian 12's headers lack.
constexpr int kPeerPidfd = 77;

Result<sockaddr_un> MakeAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return Error{ErrorCode::kInvalidArgument,
                 "socket path " + path + ": must have 1 to " +
                     std::to_string(sizeof address.sun_path - 1) + " bytes"};
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

Result<UniqueFd> MakeSocket() {
  UniqueFd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.valid()) return ErrnoError(errno, "create Unix socket");
  return socket;
}

// The descriptors of one received message, each owned from here on.
void TakeDescriptors(msghdr& message, std::vector<UniqueFd>& descriptors) {
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr;
       item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(item) + i * sizeof(int), sizeof fd);
      descriptors.emplace_back(fd);
    }
  }
}

Result<ucred> CredentialsOf(int socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return ErrnoError(errno, "ask for the peer's process");
  }
  return credentials;
}

using ControlBuffer = std::array<char, CMSG_SPACE(kMaxDescriptorsPerSend * sizeof(int))>;

}  // namespace

Result<UnixChannel> UnixChannel::Connect(const std::string& path) {
  auto address = MakeAddress(path);
  if (!address.ok()) return address.error();
  auto socket = MakeSocket();
  if (!socket.ok()) return socket.error();
  if (connect(socket->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    const int cause = errno == EAGAIN ? ECONNREFUSED : errno;  // EAGAIN: the queue is full
    return ErrnoError(cause, "connect unix:" + path);
  }
  return UnixChannel(std::move(*socket));
}

Result<void> UnixChannel::CheckAccess(const std::string& path) {
  if (faccessat(AT_FDCWD, path.c_str(), W_OK, AT_EACCESS) == 0) return {};
  return ErrnoError(errno, "connect unix:" + path);
}

Result<int> UnixChannel::QueryPeerPid() const {
  const auto credentials = CredentialsOf(socket_.get());
  if (!credentials.ok()) return credentials.error();
  return static_cast<int>(credentials->pid);
}

Result<unsigned> UnixChannel::QueryPeerUser() const {
  const auto credentials = CredentialsOf(socket_.get());
  if (!credentials.ok()) return credentials.error();
  return static_cast<unsigned>(credentials->uid);
}

Result<Pidfd> UnixChannel::HoldPeer() const {
  const auto pid = QueryPeerPid();
  if (!pid.ok()) return pid.error();
  int fd = -1;
  socklen_t size = sizeof fd;
  if (getsockopt(socket_.get(), SOL_SOCKET, kPeerPidfd, &fd, &size) == 0) {
    return Pidfd::Of(UniqueFd(fd), *pid);
  }
  if (errno == ENOPROTOOPT) return HoldPeerByNumber();
  const int cause = errno == ENODATA || errno == EINVAL ? ESRCH : errno;  // it has ended
  return ErrnoError(cause, "hold process " + std::to_string(*pid));
}

Result<Pidfd> UnixChannel::HoldPeerByNumber() const {
  const auto pid = QueryPeerPid();
  if (!pid.ok()) return pid.error();
  auto process = Pidfd::Open(*pid);
  if (!process.ok()) return process;
  // In this order: as long as the connection stands the number is still the peer's.
  pollfd closed{socket_.get(), POLLRDHUP, 0};
  if (poll(&closed, 1, 0) != 0) {
    return ErrnoError(ESRCH, "hold process " + std::to_string(*pid));
  }
  return process;
}

Result<void> UnixChannel::Send(std::span<const std::byte> bytes, std::span<const int> descriptors,
                               std::chrono::milliseconds timeout) {
  using std::chrono::steady_clock;
  const steady_clock::time_point deadline = steady_clock::now() + timeout;
  alignas(cmsghdr) ControlBuffer control{};
  while (!bytes.empty()) {
    iovec part{const_cast<std::byte*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    if (!descriptors.empty()) {
      message.msg_control = control.data();
      message.msg_controllen = CMSG_SPACE(descriptors.size_bytes());
      cmsghdr* item = CMSG_FIRSTHDR(&message);
      item->cmsg_level = SOL_SOCKET;
      item->cmsg_type = SCM_RIGHTS;
      item->cmsg_len = CMSG_LEN(descriptors.size_bytes());
      std::memcpy(CMSG_DATA(item), descriptors.data(), descriptors.size_bytes());
    }
    const ssize_t sent = sendmsg(socket_.get(), &message, MSG_NOSIGNAL);
    if (sent > 0) {
      bytes = bytes.subspan(static_cast<size_t>(sent));
      descriptors = {};
      continue;
    }
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return ErrnoError(errno, "send to Unix socket");
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now()).count();
    if (left <= 0) return ErrnoError(ETIMEDOUT, "send to Unix socket");
    pollfd writable{socket_.get(), POLLOUT, 0};
    poll(&writable, 1, static_cast<int>(std::min<int64_t>(left, 60'000)));
  }
  return {};
}

Result<size_t> UnixChannel::Receive(std::span<std::byte> to, std::vector<UniqueFd>& descriptors) {
  alignas(cmsghdr) ControlBuffer control{};
  for (;;) {
    iovec part{to.data(), to.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const ssize_t got = recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return size_t{0};
    if (got < 0) return ErrnoError(errno, "receive from Unix socket");
    TakeDescriptors(message, descriptors);
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
      return Error{ErrorCode::kProtocol,
                   "receive from Unix socket: descriptors were lost (limit of open files?)"};
    }
    if (got == 0) return Error{ErrorCode::kUnavailable, "receive from Unix socket: peer has closed"};
    return static_cast<size_t>(got);
  }
}

Result<UnixListener> UnixListener::Listen(const std::string& path, unsigned mode,
                                          const std::string& group) {
  auto address = MakeAddress(path);
  if (!address.ok()) return address.error();
  auto socket = MakeSocket();
  if (!socket.ok()) return socket.error();
  if (bind(socket->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) != 0) {
    return ErrnoError(errno, "bind unix:" + path);
  }
  // Nobody can connect before listen(): the permissions are right from the first moment.
  if (!group.empty()) {
    const ::group* const entry = getgrnam(group.c_str());
    if (entry == nullptr) {
      unlink(path.c_str());
      return Error{ErrorCode::kNotFound, "give unix:" + path + " to group " + group +
                                             ": there is no such group"};
    }
    if (chown(path.c_str(), static_cast<uid_t>(-1), entry->gr_gid) != 0) {
      return ErrnoError(errno, "give unix:" + path + " to group " + group);
    }
  }
  if (chmod(path.c_str(), static_cast<mode_t>(mode)) != 0) {
    return ErrnoError(errno, "set permissions of unix:" + path);
  }
  if (listen(socket->get(), SOMAXCONN) != 0) return ErrnoError(errno, "listen unix:" + path);
  struct stat bound {};
  if (lstat(path.c_str(), &bound) != 0) return ErrnoError(errno, "look at unix:" + path);
  return UnixListener(std::move(*socket), path, {bound.st_dev, bound.st_ino});
}

void UnixListener::RemovePath() const {
  struct stat there {};
  if (lstat(path_.c_str(), &there) == 0 && FileId{there.st_dev, there.st_ino} == file_id_) {
    unlink(path_.c_str());
  }
}

Result<UnixChannel> UnixListener::Accept() {
  for (;;) {
    UniqueFd accepted(accept4(socket_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (accepted.valid()) return UnixChannel(std::move(accepted));
    if (errno == EINTR) continue;
    if (errno == EAGAIN) return Error{ErrorCode::kTimeout, "accept: no connection waits"};
    return ErrnoError(errno, "accept Unix connection");
  }
}

}  // namespace postcopy
