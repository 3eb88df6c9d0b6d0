// One TCP connection on a non-blocking socket.
//
// Says what happened and decides nothing: when to send, what a failure means and whether to connect
// again is the caller's. Knows no protocol.
#ifndef POSTCOPY_LAB_LOAD_TCP_CONNECTION_H_
#define POSTCOPY_LAB_LOAD_TCP_CONNECTION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace postcopy_lab {

// Where a server is: an IPv4 address in numbers, and a port.
struct Server {
  std::string host;
  int port = 0;
};
// From "ADDRESS[:PORT]".
std::optional<Server> ParseServer(const std::string& text, int default_port);

// One thread. Owns its socket. What returns a bool returns false when the connection is lost: it is
// closed then, and problem() says why.
class TcpConnection {
 public:
  // Takes received bytes, valid only during the call. False: read no more now.
  using Sink = std::function<bool(std::span<const char>)>;

  TcpConnection() = default;
  TcpConnection(const TcpConnection&) = delete;
  TcpConnection& operator=(const TcpConnection&) = delete;
  ~TcpConnection() { Close(); }

  // Begins to connect (closing what was open) and returns at once; wait for writability.
  bool Connect(const Server& server);
  // To be called when the socket is ready for the first time after Connect.
  bool FinishConnecting();
  // Sends what the socket's buffer takes and stores its length. REQUIRES: connected.
  bool SendSome(std::string_view bytes, size_t* sent_bytes);
  // Sends bytes that fit the socket's empty buffer: anything but all of them is a loss.
  // REQUIRES: connected.
  bool Send(std::string_view bytes);
  // Reads what is there, but no more than `limit_bytes`, until the sink wants no more. REQUIRES:
  // connected.
  bool Receive(const Sink& sink, uint64_t limit_bytes = UINT64_MAX);
  // Closes the connection for a reason that the caller found.
  void Lose(std::string problem);
  void Close();

  // -1 when closed.
  int descriptor() const { return descriptor_; }
  bool connected() const { return connected_; }
  const std::string& problem() const { return problem_; }

 private:
  bool LoseByErrno(const char* operation, int error);

  int descriptor_ = -1;
  bool connected_ = false;
  std::string problem_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_TCP_CONNECTION_H_
