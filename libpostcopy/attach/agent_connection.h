// One connection of the agent protocol, either end: whole messages with the descriptors that belong
// to them.
//
// Checks what docs/agent-protocol.md says about frames; not responsible for the order of messages,
// for connecting and for closing politely. One thread at a time.
#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "core/result.h"
#include "platform/unique_fd.h"
#include "platform/unix_channel.h"
#include "wire/agent_protocol.h"
#include "wire/frame.h"

namespace postcopy {

class AgentConnection {
 public:
  explicit AgentConnection(UnixChannel channel);

  // Still owned by this object; readable when Receive() has something to say.
  int fd() const { return channel_.fd(); }
  Result<int> QueryPeerPid() const { return channel_.QueryPeerPid(); }

  // Blocks while the peer does not read, at most `timeout`. kInvalidArgument: the message breaks a
  // rule of the protocol and was not sent; after any other failure the connection is of no more use.
  // REQUIRES: as many descriptors as wire::CountDescriptors() says. They stay the caller's.
  Result<void> Send(const wire::AgentMessage& message, std::span<const int> descriptors,
                    std::chrono::milliseconds timeout);

  struct Received {
    wire::AgentMessage message;
    std::vector<UniqueFd> descriptors;  // exactly those that belong to it
  };
  // The next message, without waiting; nullopt: nothing whole there now. Call until nullopt, since
  // several may have come at once. kUnavailable: the peer has closed. kUnsupported and kProtocol: a
  // violation, see wire::DecodeAgentFrame(). After an error the connection is of no more use.
  Result<std::optional<Received>> Receive();

 private:
  Result<std::optional<Received>> TakeMessage();

  UnixChannel channel_;
  wire::FrameReader reader_;
  std::vector<std::byte> buffer_;
  // Descriptors that have come and whose frame has not been taken yet, in order.
  std::vector<UniqueFd> descriptors_;
};

}  // namespace postcopy
