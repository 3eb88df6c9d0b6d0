// What postcopyctl prints with --json: docs/json.md describes it, and the JSON Schema beside that
// (docs/postcopyctl.schema.json) is what its tests check every answer against.
#pragma once

#include <google/protobuf/message.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "control/postcopy.pb.h"

namespace postcopy {

// A message of postcopy.v1: every field by its proto name; numbers as numbers, enums as their value's
// word in lower case with hyphens ("rolled-back"). Null: an optional field that is absent, an empty
// string, an enum's value 0.
nlohmann::ordered_json ToJson(const google::protobuf::Message& message);

// What every answer begins with. Empty `vm`, `outcome` or `error`, and null `state`: null.
nlohmann::ordered_json Head(std::string_view vm, std::string_view outcome,
                            const nlohmann::ordered_json& state, std::string_view error);

// `head`, and behind it what `body` has besides. What both have is the head's.
nlohmann::ordered_json Joined(nlohmann::ordered_json head, const nlohmann::ordered_json& body);

// The answer of a command about one session: the head, then all of its figures.
nlohmann::ordered_json WithFigures(const v1::Progress& progress, std::string_view outcome,
                                   std::string_view error);

// On stdout: indented, or on one line. Bytes that are not UTF-8 are replaced.
void PrintJson(const nlohmann::ordered_json& json);
void PrintJsonLine(const nlohmann::ordered_json& json);

}  // namespace postcopy
