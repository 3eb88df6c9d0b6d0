// One kept-open HTTP/1.1 connection with at most one request on the way, on a non-blocking socket.
//
// Says what happened and decides nothing: when to send, what a failure means and whether to connect
// again is the caller's.
#ifndef POSTCOPY_LAB_LOAD_HTTP_CONNECTION_H_
#define POSTCOPY_LAB_LOAD_HTTP_CONNECTION_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "http_response.h"
#include "tcp_connection.h"

namespace postcopy_lab {

// From "http://ADDRESS[:PORT]", an IPv4 address in numbers.
std::optional<Server> ParseUrlBase(const std::string& url);

// One thread. Owns its socket.
class HttpConnection {
 public:
  using BodySink = std::function<void(std::span<const char>)>;
  enum class Outcome {
    kPending,    // nothing to tell yet
    kConnected,  // the connection stands; a request may be sent
    kResponse,   // the response is complete; see response()
    kLost,       // the connection is closed; problem() says why
  };

  // Begins to connect (closing what was open) and returns at once; wait for writability. kLost on
  // an error that is known already.
  Outcome Connect(const Server& server);
  // Sends a GET of `path` and forgets the last response. REQUIRES: connected, no request on the
  // way.
  Outcome Send(const std::string& path);
  // To be called when the socket is ready for anything. Reads what is there, but no more than
  // `limit_bytes`; body bytes go to `body`, valid only during that call.
  Outcome OnReady(const BodySink& body, uint64_t limit_bytes = UINT64_MAX);
  void Close() { tcp_.Close(); }

  // -1 when closed.
  int descriptor() const { return tcp_.descriptor(); }
  bool connected() const { return tcp_.connected(); }
  const HttpResponse& response() const { return response_; }
  const std::string& problem() const { return tcp_.problem(); }

 private:
  TcpConnection tcp_;
  std::string host_;
  HttpResponse response_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_HTTP_CONNECTION_H_
