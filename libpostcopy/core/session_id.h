// The 16 random bytes that name one relocation in every message, record and log line about it.
//
// Not responsible for: making them (the daemon that prepares a relocation does).
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace postcopy {

struct SessionId {
  std::array<std::byte, 16> bytes{};

  friend auto operator<=>(const SessionId&, const SessionId&) = default;

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

  // Nothing unless `text` is what ToString() makes.
  static std::optional<SessionId> Parse(std::string_view text) {
    const auto digit = [](char c) -> int {
      if (c >= '0' && c <= '9') return c - '0';
      if (c >= 'a' && c <= 'f') return c - 'a' + 10;
      return -1;
    };
    SessionId id;
    if (text.size() != 2 * id.bytes.size()) return std::nullopt;
    for (size_t i = 0; i < id.bytes.size(); ++i) {
      const int high = digit(text[2 * i]);
      const int low = digit(text[2 * i + 1]);
      if (high < 0 || low < 0) return std::nullopt;
      id.bytes[i] = static_cast<std::byte>(high * 16 + low);
    }
    return id;
  }
};

}  // namespace postcopy
