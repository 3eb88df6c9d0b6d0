#include "core/address.h"

#include <algorithm>
#include <charconv>

#include "core/printable_text.h"

namespace postcopy {
namespace {

constexpr size_t kMaxHostBytes = 253;  // of a name in the DNS
constexpr size_t kMaxShownBytes = 100;  // of a text that is none, in a message

Error Wrong(std::string_view text, const char* what) {
  const std::string shown =
      text.empty() ? "an empty text" : PrintableText(text.substr(0, kMaxShownBytes));
  return {ErrorCode::kInvalidArgument, shown + (text.size() > kMaxShownBytes ? "...: " : ": ") + what};
}

bool IsDigit(char letter) { return letter >= '0' && letter <= '9'; }
bool IsHexDigit(char letter) {
  return IsDigit(letter) || (letter >= 'a' && letter <= 'f') || (letter >= 'A' && letter <= 'F');
}
bool IsNameLetter(char letter) {
  return IsDigit(letter) || (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') ||
         letter == '-' || letter == '_' || letter == '.';
}

// Four decimal numbers up to 255. None begins with a zero, which would make it an octal one where the
// address is used.
bool IsIpv4(std::string_view host) {
  for (int part = 0; part < 4; ++part) {
    unsigned value = 256;
    if (host.empty() || !IsDigit(host[0])) return false;
    if (host.size() > 1 && host[0] == '0' && host[1] != '.') return false;
    const auto [end, error] = std::from_chars(host.data(), host.data() + host.size(), value);
    if (error != std::errc() || value > 255) return false;
    host.remove_prefix(static_cast<size_t>(end - host.data()));
    if (part == 3) return host.empty();
    if (!host.starts_with('.')) return false;
    host.remove_prefix(1);
  }
  return false;
}

// Groups of up to four hexadecimal digits with colons between, one pair of colons in place of any
// number of zeros, perhaps an IPv4 address as the last two groups, perhaps a scope.
bool IsIpv6Text(std::string_view host) {
  if (const size_t percent = host.find('%'); percent != std::string_view::npos) {
    const std::string_view scope = host.substr(percent + 1);
    if (scope.empty() || !std::all_of(scope.begin(), scope.end(), IsNameLetter)) return false;
    host = host.substr(0, percent);
  }
  int groups = 0;
  bool shortened = false;
  if (host.starts_with("::")) {
    shortened = true;
    host.remove_prefix(2);
  }
  while (!host.empty()) {
    if (IsIpv4(host)) {
      groups += 2;
      break;
    }
    size_t digits = 0;
    while (digits < host.size() && IsHexDigit(host[digits])) ++digits;
    if (digits == 0 || digits > 4) return false;
    ++groups;
    host.remove_prefix(digits);
    if (host.empty()) break;
    if (host.starts_with("::")) {
      if (shortened) return false;
      shortened = true;
      host.remove_prefix(2);
    } else if (host.starts_with(':') && host.size() > 1) {
      host.remove_prefix(1);
    } else {
      return false;
    }
  }
  return shortened ? groups <= 7 : groups == 8;
}

// What is wrong with a host that is no IPv6 address; null: nothing.
const char* ComplaintAboutHost(std::string_view host) {
  if (host.empty()) return "it names no host";
  if (host.size() > kMaxHostBytes) return "the host's name is longer than 253 bytes";
  if (!std::all_of(host.begin(), host.end(), IsNameLetter)) {
    return "the host is neither an IP address nor a name";
  }
  const bool digits_only = std::all_of(host.begin(), host.end(),
                                       [](char letter) { return IsDigit(letter) || letter == '.'; });
  if (digits_only && !IsIpv4(host)) return "the host is no IPv4 address (four numbers up to 255)";
  if (host.front() == '.' || host.front() == '-') return "the host is neither an IP address nor a name";
  return nullptr;
}

bool IsZeroIpv6(std::string_view host) {
  return host.find(':') != std::string_view::npos &&
         std::all_of(host.begin(), host.end(), [](char each) { return each == ':' || each == '0'; });
}

}  // namespace

Result<Address> Address::Parse(std::string_view text, const AddressForm& form) {
  Address address;
  for (const std::string_view scheme : {"unix:", "unix-abstract:"}) {
    // With a port it would read as a path.
    if (text == scheme.substr(0, scheme.size() - 1)) return Wrong(text, "it names no path");
    if (!text.starts_with(scheme)) continue;
    if (!form.may_be_unix) return Wrong(text, "a Unix socket can't be reached from another host");
    if (text.size() == scheme.size()) return Wrong(text, "it names no path");
    address.path_ = text;
    return address;
  }
  std::string_view host = text;
  std::optional<std::string_view> port;
  if (text.starts_with('[')) {
    const size_t end = text.find(']');
    if (end == std::string_view::npos) return Wrong(text, "the bracket is not closed");
    host = text.substr(1, end - 1);
    const std::string_view after = text.substr(end + 1);
    if (!IsIpv6Text(host)) return Wrong(text, "what stands in the brackets is no IPv6 address");
    if (!after.empty() && after[0] != ':') return Wrong(text, "after the bracket only :PORT may follow");
    if (!after.empty()) port = after.substr(1);
  } else if (std::count(text.begin(), text.end(), ':') > 1) {
    if (!IsIpv6Text(host)) return Wrong(text, "it is neither HOST:PORT nor an IPv6 address");
  } else {
    if (const size_t colon = text.find(':'); colon != std::string_view::npos) {
      host = text.substr(0, colon);
      port = text.substr(colon + 1);
    }
    if (const char* complaint = ComplaintAboutHost(host)) return Wrong(text, complaint);
  }
  address.host_ = host;
  if (!port.has_value()) {
    if (!form.default_port.has_value()) return Wrong(text, "it names no port");
    address.port_ = *form.default_port;
  } else {
    const auto [end, error] =
        std::from_chars(port->data(), port->data() + port->size(), address.port_);
    const bool zero = address.port_ == 0 && !form.may_listen;
    if (port->empty() || error != std::errc() || end != port->data() + port->size() || zero) {
      return Wrong(text, "the port is not a number from 1 to 65535");
    }
  }
  if (address.IsWildcard() && !form.may_listen) {
    return Wrong(text, "it means every address of a host, so nothing can connect to it");
  }
  return address;
}

std::string Address::ToString() const {
  if (is_unix()) return path_;
  const std::string port = ":" + std::to_string(port_);
  return IsIpv6() ? "[" + host_ + "]" + port : host_ + port;
}

bool Address::IsWildcard() const { return host_ == "0.0.0.0" || IsZeroIpv6(host_); }

bool Address::IsLocalOnly() const {
  if (is_unix()) return true;
  if (host_ == "localhost" || host_ == "::1") return true;
  return host_.starts_with("127.") && IsIpv4(host_);
}

Address Address::WithHost(std::string host) const {
  Address changed = *this;
  changed.host_ = std::move(host);
  return changed;
}

Address Address::WithPort(uint16_t port) const {
  Address changed = *this;
  changed.port_ = port;
  return changed;
}

}  // namespace postcopy
