// Control addresses as operators write them: host:port, [ipv6]:port, or unix:path.
//
// Pure text. Not responsible for resolving names or for opening anything.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace postcopy {

inline constexpr uint16_t kControlPort = 7700;

// `address` with `port` appended when it names none. A bare IPv6 address gets its brackets;
// unix:path stays as it is.
std::string WithDefaultPort(std::string_view address, uint16_t port);

// True if only this host can reach `address`: a Unix socket, 127.0.0.0/8, ::1 or `localhost`. Any
// other name counts as reachable from elsewhere, whatever it resolves to.
bool IsLocalOnly(std::string_view address);

// `address` with its port replaced.
// REQUIRES: `address` names a port.
std::string WithPort(std::string_view address, int port);

}  // namespace postcopy
