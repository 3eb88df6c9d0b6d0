// Checked access to JSON that a peer sent: a member that is missing or of another type reads as an
// empty value, and nothing throws. Whether an empty value is acceptable is the caller's to decide.
// Strings come as PrintableText(): what a VMM says may be shown and logged.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "core/printable_text.h"

namespace postcopy {

using Json = nlohmann::json;

// To copy or print a value takes stack for each level of it. QEMU itself reads no more levels.
inline constexpr size_t kMaxJsonLevels = 1024;

// How many arrays and objects lie within each other at the deepest place of `text`, if it is JSON.
inline size_t JsonLevels(std::string_view text) {
  size_t levels = 0;
  size_t deepest = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++levels);
    } else if ((c == ']' || c == '}') && levels > 0) {
      --levels;
    }
  }
  return deepest;
}

// The value that `text` is; one that is_discarded() if it is none or has more than kMaxJsonLevels.
inline Json ParseJson(std::string_view text) {
  if (JsonLevels(text) > kMaxJsonLevels) return Json(Json::value_t::discarded);
  return Json::parse(text, nullptr, /*allow_exceptions=*/false);
}

// The member, or a null value that lives as long as the program.
inline const Json& MemberAt(const Json& object, const char* key) {
  static const Json missing;
  if (!object.is_object()) return missing;
  const auto found = object.find(key);
  return found == object.end() ? missing : *found;
}

inline std::string StringAt(const Json& object, const char* key) {
  const auto* text = MemberAt(object, key).get_ptr<const Json::string_t*>();
  return text == nullptr ? std::string() : PrintableText(*text);
}

// As it was sent, for text of many lines that is parsed and not shown.
inline std::string RawStringAt(const Json& object, const char* key) {
  const auto* text = MemberAt(object, key).get_ptr<const Json::string_t*>();
  return text == nullptr ? std::string() : *text;
}

inline bool BoolAt(const Json& object, const char* key) {
  const auto* value = MemberAt(object, key).get_ptr<const Json::boolean_t*>();
  return value != nullptr && *value;
}

// 0 also for a number that is negative or not whole.
inline uint64_t UnsignedAt(const Json& object, const char* key) {
  const Json& value = MemberAt(object, key);
  if (const auto* number = value.get_ptr<const Json::number_unsigned_t*>()) return *number;
  const auto* number = value.get_ptr<const Json::number_integer_t*>();
  return number != nullptr && *number > 0 ? static_cast<uint64_t>(*number) : 0;
}

}  // namespace postcopy
