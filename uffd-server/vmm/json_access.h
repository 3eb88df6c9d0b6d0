// Checked access to JSON that a peer sent: a member that is missing or of another type reads as an
// empty value, and nothing throws. Whether an empty value is acceptable is the caller's to decide.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

namespace postcopy {

using Json = nlohmann::json;

// The member, or a null value that lives as long as the program.
inline const Json& MemberAt(const Json& object, const char* key) {
  static const Json missing;
  if (!object.is_object()) return missing;
  const auto found = object.find(key);
  return found == object.end() ? missing : *found;
}

inline std::string StringAt(const Json& object, const char* key) {
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
