// Unix stream sockets that carry descriptors (SCM_RIGHTS).
//
// Moves bytes and descriptors; not responsible for what they mean, for frames, or for trying again.
// Sockets are non-blocking and close-on-exec, and so is every descriptor received. No call raises
// SIGPIPE. One thread may send while another receives.
#pragma once

#include <chrono>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "core/result.h"
#include "platform/pidfd.h"
#include "platform/ram_file.h"
#include "platform/unique_fd.h"

namespace postcopy {

// What the kernel lets travel with one send (SCM_MAX_FD).
inline constexpr size_t kMaxDescriptorsPerSend = 253;

class UnixChannel {
 public:
  // Connects to the socket at `path`; does not block. kNotFound: no such socket. kUnavailable:
  // nobody listens, or the listener's queue is full. kInvalidArgument: the path is too long.
  static Result<UnixChannel> Connect(const std::string& path);

  // Whether this process could connect to the socket at `path` if somebody listened; connects to
  // nothing. kNotFound: there is no such path, as seen from this process's root directory.
  // kPermission: its user may not.
  static Result<void> CheckAccess(const std::string& path);

  // Still owned by this object; readable when Receive() has something to say.
  int fd() const { return socket_.get(); }
  // The peer's process when it connected (or began to listen), in this process's pid namespace; 0:
  // it is in another one.
  Result<int> QueryPeerPid() const;
  // The user of that process, then.
  Result<unsigned> QueryPeerUser() const;
  // Holds that very process (SO_PEERPIDFD, Linux 6.5); before 6.5 as HoldPeerByNumber(). kUnavailable:
  // it has ended; on newer kernels it may be held all the same, as one that has ended.
  Result<Pidfd> HoldPeer() const;
  // The process that has the peer's number now. It is the peer if the peer has closed no descriptor of
  // this connection, which it does when it ends: otherwise kUnavailable. A peer that has ended and
  // left the connection to a child is not noticed.
  Result<Pidfd> HoldPeerByNumber() const;

  // Sends all of `bytes`; the descriptors travel with the first of them and stay the caller's.
  // Blocks while the peer does not read, at most `timeout`. kUnavailable: the peer is gone. After
  // any failure a part may have been sent: the stream is of no more use.
  // REQUIRES: `bytes` is not empty, at most 253 descriptors.
  Result<void> Send(std::span<const std::byte> bytes, std::span<const int> descriptors,
                    std::chrono::milliseconds timeout);

  // Receives what has come, at most `to`, without waiting; appends the descriptors that came with
  // it. 0 bytes: nothing there now. kUnavailable: the peer has closed. kProtocol: descriptors were
  // lost because this process may not open more.
  Result<size_t> Receive(std::span<std::byte> to, std::vector<UniqueFd>& descriptors);

 private:
  friend class UnixListener;
  explicit UnixChannel(UniqueFd socket) : socket_(std::move(socket)) {}

  UniqueFd socket_;
};

class UnixListener {
 public:
  // Binds to `path`, which must not exist, gives it the permissions `mode` and, if not empty, to the
  // group of that name, and listens. kNotFound: no such group.
  static Result<UnixListener> Listen(const std::string& path, unsigned mode,
                                     const std::string& group = "");

  // Removes the socket's path, unless something else has taken its place.
  void RemovePath() const;

  // Still owned by this object; readable when Accept() has something.
  int fd() const { return socket_.get(); }
  // The next connection, without waiting. kTimeout: none waits. Anything else: this one was lost or
  // descriptors have run out; the listener goes on.
  Result<UnixChannel> Accept();

 private:
  UnixListener(UniqueFd socket, std::string path, FileId file_id)
      : socket_(std::move(socket)), path_(std::move(path)), file_id_(file_id) {}

  UniqueFd socket_;
  std::string path_;
  FileId file_id_;  // of what was bound there
};

}  // namespace postcopy
