// Connections to other daemons: how fast they fail, come back and notice a dead peer.
#pragma once

#include <chrono>
#include <memory>
#include <string>

namespace grpc {
class Channel;
class ClientContext;
}  // namespace grpc

namespace postcopy {

// Limits that both ends of a control connection share.
inline constexpr int kMaxMessageBytes = 16 << 20;
// A peer that has been silent for both together is taken as lost; a call to it that is under way then
// fails. A VM may stand still meanwhile.
inline constexpr std::chrono::milliseconds kKeepaliveInterval{1000};
inline constexpr std::chrono::milliseconds kKeepaliveTimeout{2000};

// A channel that connects when it is first used. A call on it fails at once when the peer refuses,
// after 2 s when the peer's host does not answer; a lost connection is tried again after 100 ms,
// then ever more slowly up to 1 s. Not encrypted.
std::shared_ptr<grpc::Channel> OpenChannel(const std::string& address);

// The call ends after `limit`, and at once when there is no connection.
void Limit(grpc::ClientContext& context, std::chrono::milliseconds limit);

}  // namespace postcopy
