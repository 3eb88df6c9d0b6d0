#include "attach/agent_connection.h"

#include <cassert>
#include <iterator>

namespace postcopy {
namespace {

constexpr size_t kReceiveBytes = 16 * 1024;

}  // namespace

AgentConnection::AgentConnection(UnixChannel channel)
    : channel_(std::move(channel)), reader_(wire::kMaxAgentBodyBytes), buffer_(kReceiveBytes) {}

Result<void> AgentConnection::Send(const wire::AgentMessage& message,
                                   std::span<const int> descriptors,
                                   std::chrono::milliseconds timeout) {
  assert(descriptors.size() == wire::CountDescriptors(message));
  if (auto valid = wire::Validate(message); !valid.ok()) return valid;
  return channel_.Send(wire::Encode(message), descriptors, timeout);
}

Result<std::optional<AgentConnection::Received>> AgentConnection::Receive() {
  for (;;) {
    auto taken = TakeMessage();
    if (!taken.ok() || taken->has_value()) return taken;
    auto got = channel_.Receive(buffer_, descriptors_);
    if (!got.ok()) return got.error();
    if (*got == 0) return std::optional<Received>();
    if (descriptors_.size() > wire::kMaxAgentDescriptors) {
      return Error{ErrorCode::kProtocol, "agent connection: more descriptors than any frame has"};
    }
    reader_.Feed(std::span(buffer_).first(*got));
  }
}

Result<std::optional<AgentConnection::Received>> AgentConnection::TakeMessage() {
  wire::Frame frame;
  switch (reader_.Next(frame)) {
    case wire::FrameReader::Outcome::kNeedMore: return std::optional<Received>();
    case wire::FrameReader::Outcome::kTooLong:
      return Error{ErrorCode::kProtocol, "agent connection: a frame is longer than any may be"};
    case wire::FrameReader::Outcome::kFrame: break;
  }
  auto message = wire::DecodeAgentFrame(frame);
  if (!message.ok()) return message.error();
  const size_t count = frame.header.aux;
  if (descriptors_.size() < count) {
    return Error{ErrorCode::kProtocol, "agent connection: " + std::to_string(count) +
                                           " descriptors announced, " +
                                           std::to_string(descriptors_.size()) + " came"};
  }
  Received received{std::move(*message), {}};
  const auto end = descriptors_.begin() + static_cast<ptrdiff_t>(count);
  received.descriptors.assign(std::move_iterator(descriptors_.begin()), std::move_iterator(end));
  descriptors_.erase(descriptors_.begin(), end);
  // A read ends with the data that descriptors came with, so what is left belongs to a frame that
  // has begun to come.
  if (!descriptors_.empty() && reader_.empty()) {
    return Error{ErrorCode::kProtocol, "agent connection: descriptors came that nobody announced"};
  }
  return std::optional<Received>(std::move(received));
}

}  // namespace postcopy
