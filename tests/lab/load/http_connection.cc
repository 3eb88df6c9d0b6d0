#include "http_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <string_view>

namespace postcopy_lab {

std::optional<Server> ParseUrlBase(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return std::nullopt;
  Server server;
  server.host = url.substr(kScheme.size());
  while (server.host.ends_with('/')) server.host.pop_back();
  if (const size_t colon = server.host.find(':'); colon != std::string::npos) {
    const char* end = server.host.data() + server.host.size();
    const auto result = std::from_chars(server.host.data() + colon + 1, end, server.port);
    if (result.ec != std::errc() || result.ptr != end) return std::nullopt;
    server.host.resize(colon);
  }
  in_addr ignored{};
  if (server.port < 1 || server.port > 65535 ||
      inet_pton(AF_INET, server.host.c_str(), &ignored) != 1) {
    return std::nullopt;
  }
  return server;
}

HttpConnection::Outcome HttpConnection::Lose(std::string problem) {
  problem_ = std::move(problem);
  Close();
  return Outcome::kLost;
}

void HttpConnection::Close() {
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
  connected_ = false;
}

HttpConnection::Outcome HttpConnection::Connect(const Server& server) {
  Close();
  host_ = server.host;
  descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor_ < 0) return Lose(std::string("socket: ") + strerror(errno));
  const int on = 1;
  setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server.port));
  inet_pton(AF_INET, server.host.c_str(), &address.sin_addr);
  if (connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
      errno != EINPROGRESS) {
    return Lose(std::string("connect: ") + strerror(errno));
  }
  return Outcome::kPending;
}

HttpConnection::Outcome HttpConnection::Send(const std::string& path) {
  response_.Reset();
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: " + host_ + "\r\n\r\n";
  // A request fits the socket's empty buffer: anything but all of it is a broken connection.
  const ssize_t sent = send(descriptor_, request.data(), request.size(), MSG_NOSIGNAL);
  if (sent < 0) return Lose(std::string("send: ") + strerror(errno));
  if (static_cast<size_t>(sent) != request.size()) return Lose("send: socket buffer is full");
  return Outcome::kPending;
}

HttpConnection::Outcome HttpConnection::OnReady(const BodySink& body) {
  if (!connected_) {
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error != 0) return Lose(std::string("connect: ") + strerror(error));
    connected_ = true;
    return Outcome::kConnected;
  }
  std::array<char, 131072> buffer;
  while (true) {
    const ssize_t got = recv(descriptor_, buffer.data(), buffer.size(), 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return Outcome::kPending;
    if (got < 0) return Lose(std::string("receive: ") + strerror(errno));
    if (got == 0) return Lose("receive: closed by the server");
    switch (response_.Feed(std::span(buffer.data(), static_cast<size_t>(got)), body)) {
      case HttpResponse::State::kHeader:
      case HttpResponse::State::kBody:
        break;
      case HttpResponse::State::kDone:
        return Outcome::kResponse;
      case HttpResponse::State::kMalformed:
        return Lose("response: " + response_.problem());
    }
  }
}

}  // namespace postcopy_lab
