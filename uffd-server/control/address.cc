#include "control/address.h"

#include <algorithm>
#include <charconv>

namespace postcopy {
namespace {

bool IsUnix(std::string_view address) {
  return address.starts_with("unix:") || address.starts_with("unix-abstract:");
}

// The host without brackets and port.
std::string_view HostOf(std::string_view address) {
  if (address.starts_with('[')) {
    const size_t end = address.rfind(']');
    if (end == std::string_view::npos) return address;
    const std::string_view after = address.substr(end + 1);
    return after.empty() || after.starts_with(':') ? address.substr(1, end - 1) : address;
  }
  const size_t colon = address.find(':');
  if (colon == std::string_view::npos || address.find(':', colon + 1) != std::string_view::npos) {
    return address;
  }
  return address.substr(0, colon);
}

// Four decimal numbers of 0..255, the first of which is 127. None begins with a zero, which would make
// it an octal one where the address is used.
bool IsIpv4Loopback(std::string_view host) {
  for (int part = 0; part < 4; ++part) {
    unsigned value = 256;
    if (host.size() > 1 && host[0] == '0' && host[1] != '.') return false;
    const auto [end, error] = std::from_chars(host.data(), host.data() + host.size(), value);
    if (error != std::errc() || value > 255 || (part == 0 && value != 127)) return false;
    host.remove_prefix(static_cast<size_t>(end - host.data()));
    if (part == 3) return host.empty();
    if (!host.starts_with('.')) return false;
    host.remove_prefix(1);
  }
  return false;
}

}  // namespace

std::string WithDefaultPort(std::string_view address, uint16_t port) {
  if (IsUnix(address)) return std::string(address);
  const std::string suffix = ":" + std::to_string(port);
  if (address.starts_with('[')) {
    return std::string(address) + (address.ends_with(']') ? suffix : "");
  }
  switch (std::count(address.begin(), address.end(), ':')) {
    case 0: return std::string(address) + suffix;
    case 1: return std::string(address);
    default: return "[" + std::string(address) + "]" + suffix;
  }
}

bool IsLocalOnly(std::string_view address) {
  if (IsUnix(address)) return true;
  const std::string_view host = HostOf(address);
  return host == "localhost" || host == "::1" || IsIpv4Loopback(host);
}

std::string WithPort(std::string_view address, int port) {
  return std::string(address.substr(0, address.rfind(':') + 1)) + std::to_string(port);
}

}  // namespace postcopy
