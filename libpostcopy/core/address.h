// Addresses as people and peers write them: HOST:PORT, [IPV6]:PORT, unix:PATH. The one parser: of the
// command lines, the configuration file, what daemons tell each other, and the C interface.
//
// Pure text: names are not resolved here.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "core/result.h"

namespace postcopy {

inline constexpr uint16_t kControlPort = 7700;
inline constexpr uint16_t kDataPort = 7701;

// What is accepted where an address stands.
struct AddressForm {
  std::optional<uint16_t> default_port;  // nothing: the address must name its port
  bool may_be_unix = false;
  bool may_listen = false;  // also 0 as port, and a host that means every address of this machine
};

class Address {
 public:
  // A host is an IPv4 address, an IPv6 address (in brackets if a port follows; with a scope,
  // fe80::1%eth0, where it is needed) or a name of letters, digits, '-', '_' and '.'. What consists of
  // digits and dots only has to be an IPv4 address. kInvalidArgument: the text and what is wrong with
  // it, as "10.0.0.7:99999: the port is not a number from 1 to 65535".
  static Result<Address> Parse(std::string_view text, const AddressForm& form);

  bool is_unix() const { return !path_.empty(); }
  // Without brackets. Empty for Unix.
  const std::string& host() const { return host_; }
  uint16_t port() const { return port_; }
  // As it is parsed again: 10.0.0.7:7700, [fe80::1%eth0]:7700, unix:/run/x.
  std::string ToString() const;

  // The host is 0.0.0.0 or ::, so it can be listened on and not be connected to.
  bool IsWildcard() const;
  bool IsIpv6() const { return host_.find(':') != std::string::npos; }
  // Only this machine can reach it: a Unix socket, 127.0.0.0/8, ::1 or `localhost`. Any other name
  // counts as reachable from elsewhere, whatever it resolves to.
  bool IsLocalOnly() const;

  Address WithHost(std::string host) const;
  Address WithPort(uint16_t port) const;

 private:
  Address() = default;

  std::string path_;  // with its scheme, unix: or unix-abstract:
  std::string host_;
  uint16_t port_ = 0;
};

}  // namespace postcopy
