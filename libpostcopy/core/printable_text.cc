#include "core/printable_text.h"

#include <cstdint>

namespace postcopy {
namespace {

struct Character {
  uint32_t code = 0;
  size_t bytes = 0;  // 0: not UTF-8
};

// The shortest code that needs so many bytes.
constexpr uint32_t kFirstCode[] = {0, 0, 0x80, 0x800, 0x10000};

Character FirstOf(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  if (byte(0) < 0x80) return {byte(0), 1};
  size_t bytes = 0;
  uint32_t code = 0;
  if ((byte(0) & 0xe0) == 0xc0) {
    bytes = 2;
    code = byte(0) & 0x1f;
  } else if ((byte(0) & 0xf0) == 0xe0) {
    bytes = 3;
    code = byte(0) & 0x0f;
  } else if ((byte(0) & 0xf8) == 0xf0) {
    bytes = 4;
    code = byte(0) & 0x07;
  }
  if (bytes == 0 || bytes > text.size()) return {};
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3f);
  }
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  if (code < kFirstCode[bytes] || code > 0x10ffff || surrogate) return {};
  return {code, bytes};
}

bool IsControl(uint32_t code) { return code < 0x20 || (code >= 0x7f && code <= 0x9f); }

// Line and paragraph separators, marks and overrides of direction, the byte order mark.
bool ChangesTheLine(uint32_t code) {
  return code == 0x061c || code == 0x200e || code == 0x200f || (code >= 0x2028 && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0xfeff;
}

void AppendHex(std::string& out, uint32_t value, int digits) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) {
    out += "0123456789abcdef"[value >> shift & 0xf];
  }
}

}  // namespace

std::string PrintableText(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Character character = FirstOf(text);
    if (character.bytes == 0) {
      out += "\\x";
      AppendHex(out, static_cast<unsigned char>(text[0]), 2);
      text.remove_prefix(1);
      continue;
    }
    if (IsControl(character.code)) {
      out += "\\x";
      AppendHex(out, character.code, 2);
    } else if (ChangesTheLine(character.code)) {
      out += "\\u";
      AppendHex(out, character.code, 4);
    } else {
      out += text.substr(0, character.bytes);
    }
    text.remove_prefix(character.bytes);
  }
  return out;
}

bool IsPrintable(std::string_view text) {
  while (!text.empty()) {
    const Character character = FirstOf(text);
    if (character.bytes == 0 || IsControl(character.code) || ChangesTheLine(character.code)) {
      return false;
    }
    text.remove_prefix(character.bytes);
  }
  return true;
}

}  // namespace postcopy
