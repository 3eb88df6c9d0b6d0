#include "relocation/own_addresses.h"

#include <algorithm>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "core/address.h"
#include "platform/tcp_socket.h"

namespace postcopy {
namespace {

constexpr AddressForm kForm{
    .default_port = std::nullopt, .may_be_unix = true, .may_listen = true};

// The host by which `peer` reaches a socket that listens on `listener`.
absl::StatusOr<std::string> HostTowards(const std::string& peer, const Address& listener) {
  const auto host = LocalHostTowards(peer, !listener.IsIpv6());
  if (!host.ok()) return absl::UnavailableError(host.error().message);
  return *host;
}

// Those of `listed` that `peer` can reach.
absl::StatusOr<std::vector<std::string>> Reachable(const std::vector<std::string>& listed,
                                                   const std::string& peer, const char* option) {
  std::vector<Address> addresses;
  for (const std::string& text : listed) {
    auto address = Address::Parse(text, kForm);
    if (address.ok() && !address->is_unix()) addresses.push_back(*std::move(address));
  }
  std::vector<std::string> told;
  absl::Status failure;
  for (const Address& address : addresses) {
    if (address.IsLocalOnly()) continue;
    if (!address.IsWildcard()) {
      told.push_back(address.ToString());
      continue;
    }
    const auto host = HostTowards(peer, address);
    failure.Update(host.status());
    if (host.ok()) told.push_back(address.WithHost(*host).ToString());
  }
  if (!told.empty()) return told;
  for (const Address& address : addresses) {
    if (!address.IsLocalOnly()) continue;
    const auto host = HostTowards(peer, address);
    failure.Update(host.status());
    // Then the peer is on this host.
    if (host.ok() && address.WithHost(*host).IsLocalOnly()) told.push_back(address.ToString());
  }
  if (!told.empty()) return told;
  if (!failure.ok()) return failure;
  return absl::FailedPreconditionError(
      absl::StrCat("this daemon listens on ", absl::StrJoin(listed, ", "), " only, which ", peer,
                   " cannot reach: set ", option));
}

}  // namespace

absl::StatusOr<AddressesForPeer> AddressesFor(const OwnAddresses& own, const std::string& peer) {
  AddressesForPeer told;
  if (own.control_as_said) {
    told.control = own.control.front();
  } else {
    const auto control = Reachable(own.control, peer, "listen");
    if (!control.ok()) return control.status();
    told.control = control->front();
  }
  if (own.data_as_said) {
    told.data = own.data;
  } else {
    auto data = Reachable(own.data, peer, "data-listen");
    if (!data.ok()) return data.status();
    told.data = *std::move(data);
  }
  return told;
}

}  // namespace postcopy
