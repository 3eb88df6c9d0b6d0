#include "tcp_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>

namespace postcopy_lab {

std::optional<Server> ParseServer(const std::string& text, int default_port) {
  Server server{.host = text, .port = default_port};
  if (const size_t colon = text.find(':'); colon != std::string::npos) {
    const char* end = text.data() + text.size();
    const auto result = std::from_chars(text.data() + colon + 1, end, server.port);
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

void TcpConnection::Lose(std::string problem) {
  problem_ = std::move(problem);
  Close();
}

bool TcpConnection::LoseByErrno(const char* operation, int error) {
  Lose(std::string(operation) + ": " + strerror(error));
  return false;
}

void TcpConnection::Close() {
  if (descriptor_ >= 0) close(descriptor_);
  descriptor_ = -1;
  connected_ = false;
}

bool TcpConnection::Connect(const Server& server) {
  Close();
  descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (descriptor_ < 0) return LoseByErrno("socket", errno);
  const int on = 1;
  setsockopt(descriptor_, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(server.port));
  inet_pton(AF_INET, server.host.c_str(), &address.sin_addr);
  if (connect(descriptor_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
      errno != EINPROGRESS) {
    return LoseByErrno("connect", errno);
  }
  return true;
}

bool TcpConnection::FinishConnecting() {
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(descriptor_, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return LoseByErrno("connect", error);
  connected_ = true;
  return true;
}

bool TcpConnection::SendSome(std::string_view bytes, size_t* sent_bytes) {
  ssize_t sent;
  do {
    sent = send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0 && errno != EAGAIN) return LoseByErrno("send", errno);
  *sent_bytes = sent < 0 ? 0 : static_cast<size_t>(sent);
  return true;
}

bool TcpConnection::Send(std::string_view bytes) {
  size_t sent_bytes;
  if (!SendSome(bytes, &sent_bytes)) return false;
  if (sent_bytes == bytes.size()) return true;
  Lose("send: socket buffer is full");
  return false;
}

bool TcpConnection::Receive(const Sink& sink, uint64_t limit_bytes) {
  std::array<char, 131072> buffer;
  while (limit_bytes > 0) {
    const size_t size = std::min<uint64_t>(buffer.size(), limit_bytes);
    const ssize_t got = recv(descriptor_, buffer.data(), size, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return true;
    if (got < 0) return LoseByErrno("receive", errno);
    if (got == 0) {
      Lose("receive: closed by the server");
      return false;
    }
    if (!sink(std::span(buffer.data(), static_cast<size_t>(got)))) return true;
    limit_bytes -= static_cast<uint64_t>(got);
  }
  return true;
}

}  // namespace postcopy_lab
