// The addresses at which another daemon reaches this one.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace postcopy {

// As this daemon listens, HOST:PORT or unix:PATH, or as its operator has said that others reach it.
struct OwnAddresses {
  std::vector<std::string> control;
  std::vector<std::string> data;
  bool control_as_said = false;  // by the operator (--advertise): told as it is
  bool data_as_said = false;
};

// What one peer is told.
struct AddressesForPeer {
  std::string control;
  std::vector<std::string> data;
};

// Of each list what `peer` (HOST:PORT) can reach: for a wildcard (0.0.0.0, [::]) the address of this
// host on the way to it; loopback addresses only if it is on this host. Of control the first. May
// block while the peer's name is looked up.
//   kFailedPrecondition  there is none
//   kUnavailable         which one it is cannot be found out: the peer's name or route is not known
absl::StatusOr<AddressesForPeer> AddressesFor(const OwnAddresses& own, const std::string& peer);

}  // namespace postcopy
