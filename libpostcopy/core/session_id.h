// The 16 random bytes that name one relocation in every message, record and log line about it.
//
// Not responsible for: making them (the daemon that prepares a relocation does).
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace postcopy {

struct SessionId {
  std::array<std::byte, 16> bytes{};

  friend bool operator==(const SessionId&, const SessionId&) = default;

  // 32 lower-case hexadecimal digits.
  std::string ToString() const {
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (const std::byte byte : bytes) {
      text += kDigits[std::to_integer<unsigned>(byte) >> 4];
      text += kDigits[std::to_integer<unsigned>(byte) & 15];
    }
    return text;
  }
};

}  // namespace postcopy
