// The other daemon over gRPC: what the orchestrator calls at its peers.
//
// Error text reads "offer to 10.77.0.12:7700: connection refused"; what the peer itself answered
// comes after the same words and keeps its code. No call is repeated here.
#pragma once

#include <memory>
#include <string>

#include "relocation/peer.h"

namespace postcopy {

// Thread-safe. What it returns may outlive it. Making a peer connects nothing: an address that
// cannot be reached shows in the first call.
class GrpcPeerFactory final : public PeerFactory {
 public:
  std::unique_ptr<DestinationPeer> ConnectDestination(const std::string& address) override;
  std::unique_ptr<SourcePeer> ConnectSource(const std::string& address) override;
};

}  // namespace postcopy
