// Messages of postcopy.v1 as JSON: every field by its proto name, set or not; numbers as numbers,
// enums by their proto name.
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <string>

namespace postcopy {

nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// Indented, on stdout. Bytes that are not UTF-8 are replaced.
void PrintJson(const nlohmann::ordered_json& json);

}  // namespace postcopy
