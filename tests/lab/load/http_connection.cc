#include "http_connection.h"

#include <string_view>

namespace postcopy_lab {

std::optional<Server> ParseUrlBase(const std::string& url) {
  constexpr std::string_view kScheme = "http://";
  if (!url.starts_with(kScheme)) return std::nullopt;
  std::string server = url.substr(kScheme.size());
  while (server.ends_with('/')) server.pop_back();
  return ParseServer(server, 80);
}

HttpConnection::Outcome HttpConnection::Connect(const Server& server) {
  host_ = server.host;
  return tcp_.Connect(server) ? Outcome::kPending : Outcome::kLost;
}

HttpConnection::Outcome HttpConnection::Send(const std::string& path) {
  response_.Reset();
  const std::string request = "GET " + path + " HTTP/1.1\r\nHost: " + host_ + "\r\n\r\n";
  return tcp_.Send(request) ? Outcome::kPending : Outcome::kLost;
}

HttpConnection::Outcome HttpConnection::OnReady(const BodySink& body, uint64_t limit_bytes) {
  if (!tcp_.connected()) {
    return tcp_.FinishConnecting() ? Outcome::kConnected : Outcome::kLost;
  }
  HttpResponse::State state = HttpResponse::State::kHeader;
  const bool stands = tcp_.Receive(
      [&](std::span<const char> bytes) {
        state = response_.Feed(bytes, body);
        return state == HttpResponse::State::kHeader || state == HttpResponse::State::kBody;
      },
      limit_bytes);
  if (!stands) return Outcome::kLost;
  switch (state) {
    case HttpResponse::State::kHeader:
    case HttpResponse::State::kBody:
      break;
    case HttpResponse::State::kDone:
      return Outcome::kResponse;
    case HttpResponse::State::kMalformed:
      tcp_.Lose("response: " + response_.problem());
      return Outcome::kLost;
  }
  return Outcome::kPending;
}

}  // namespace postcopy_lab
