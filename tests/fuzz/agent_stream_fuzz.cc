// What a hook, or a daemon, may send on the agent socket: whole frames of any content. What decodes
// must pass the rules of the document and encode to a message that decodes to the same.
#include <cstdlib>

#include "wire/agent_protocol.h"

namespace postcopy::wire {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void Read(std::span<const std::byte> input) {
  FrameReader reader(kMaxAgentBodyBytes);
  reader.Feed(input);
  Frame frame;
  while (reader.Next(frame) == FrameReader::Outcome::kFrame) {
    const auto message = DecodeAgentFrame(frame);
    if (!message.ok()) continue;
    Require(Validate(*message).ok());
    FrameReader again(kMaxAgentBodyBytes);
    again.Feed(Encode(*message));
    Frame encoded;
    Require(again.Next(encoded) == FrameReader::Outcome::kFrame);
    const auto decoded = DecodeAgentFrame(encoded);
    Require(decoded.ok() && *decoded == *message);
  }
}

}  // namespace
}  // namespace postcopy::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postcopy::wire::Read(std::as_bytes(std::span(data, size)));
  return 0;
}
