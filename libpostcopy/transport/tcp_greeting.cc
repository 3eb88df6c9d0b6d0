#include "transport/tcp_greeting.h"

#include "platform/tcp_socket.h"
#include "wire/page_frame_reader.h"

namespace postcopy {
namespace {

using wire::PageFrame;
using wire::PageFrameReader;

Result<wire::Welcome> AwaitWelcome(int socket, const std::string& address) {
  PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
  for (;;) {
    const auto received = Receive(socket, reader.WritableSpace());
    switch (received.outcome) {
      case SocketOutcome::kDone: reader.Commit(received.bytes); break;
      case SocketOutcome::kTimedOut:
        return Error{ErrorCode::kTimeout, "greet tcp://" + address + ": no answer"};
      case SocketOutcome::kClosed:
        return Error{ErrorCode::kUnavailable, "greet tcp://" + address + ": connection closed"};
      case SocketOutcome::kFailed: return ErrnoError(received.error, "greet tcp://" + address);
    }
    PageFrameReader::Item item;
    switch (reader.Next(item)) {
      case PageFrameReader::Outcome::kNeedMore: continue;
      case PageFrameReader::Outcome::kFrame: break;
      case PageFrameReader::Outcome::kPiece:
      case PageFrameReader::Outcome::kMalformed:
        return Error{ErrorCode::kProtocol, "page server: malformed greeting"};
    }
    const auto type = static_cast<PageFrame>(item.header.type);
    if (type == PageFrame::kError) return RefusalIn(item.bytes);
    if (type == PageFrame::kWelcome) return wire::DecodeWelcome(item.bytes);
    return Error{ErrorCode::kProtocol, "page server: greeting expected"};
  }
}

}  // namespace

Error Broken(std::string cause) {
  return {ErrorCode::kProtocol, "page server: " + std::move(cause)};
}

Error RefusalIn(std::span<const std::byte> body) {
  const auto fields = wire::DecodeError(body);
  if (!fields.ok()) return fields.error();
  const bool later = fields->code == wire::PageError::kNotNow;
  return {later ? ErrorCode::kUnavailable : ErrorCode::kProtocol,
          "page server refused: " + fields->text};
}

Result<wire::Welcome> Greet(int socket, const wire::Hello& hello, std::chrono::milliseconds timeout,
                            const std::string& address) {
  SetReceiveTimeout(socket, timeout);
  SendAll(socket, wire::EncodeHello(hello));  // a failure shows in what is received
  auto welcome = AwaitWelcome(socket, address);
  if (!welcome.ok()) return welcome;
  if (welcome->version != hello.version) {
    return Error{ErrorCode::kProtocol, "page server: it chose version " +
                                           std::to_string(welcome->version) + ", offered was " +
                                           std::to_string(hello.version)};
  }
  SetReceiveTimeout(socket, std::chrono::milliseconds(0));
  return welcome;
}

}  // namespace postcopy
