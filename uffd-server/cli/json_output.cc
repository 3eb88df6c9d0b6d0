#include "cli/json_output.h"

#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace postcopy {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::ordered_json;

ordered_json TextOrNull(std::string_view text) {
  return text.empty() ? ordered_json(nullptr) : ordered_json(text);
}

// "rolled-back" of STATE_ROLLED_BACK in the enum State.
ordered_json WordOf(const google::protobuf::EnumValueDescriptor& value) {
  if (value.number() == 0) return nullptr;
  std::string prefix;
  for (const char letter : value.type()->name()) {
    if (absl::ascii_isupper(static_cast<unsigned char>(letter)) && !prefix.empty()) prefix += '_';
    prefix += absl::ascii_toupper(static_cast<unsigned char>(letter));
  }
  prefix += '_';
  std::string_view name = value.name();
  if (name.starts_with(prefix)) name.remove_prefix(prefix.size());
  return absl::StrReplaceAll(absl::AsciiStrToLower(std::string(name)), {{"_", "-"}});
}

ordered_json Single(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  if (field.has_presence() && !reflection.HasField(message, &field)) return nullptr;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32: return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64: return reflection.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM: return WordOf(*reflection.GetEnum(message, &field));
    case FieldDescriptor::CPPTYPE_STRING: return TextOrNull(reflection.GetString(message, &field));
    case FieldDescriptor::CPPTYPE_MESSAGE: return ToJson(reflection.GetMessage(message, &field));
  }
  return nullptr;
}

}  // namespace

ordered_json ToJson(const Message& message) {
  ordered_json json = ordered_json::object();
  const auto& descriptor = *message.GetDescriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (!field.is_repeated()) {
      json[field.name()] = Single(message, field);
      continue;
    }
    // Lists of messages only: what operators are told has no others.
    ordered_json list = ordered_json::array();
    for (int k = 0; k < reflection.FieldSize(message, &field); ++k) {
      list.push_back(ToJson(reflection.GetRepeatedMessage(message, &field, k)));
    }
    json[field.name()] = std::move(list);
  }
  return json;
}

ordered_json Head(std::string_view vm, std::string_view outcome, const ordered_json& state,
                  std::string_view error) {
  return {{"vm", TextOrNull(vm)},
          {"outcome", TextOrNull(outcome)},
          {"state", state},
          {"error", TextOrNull(error)}};
}

ordered_json Joined(ordered_json head, const ordered_json& body) {
  for (const auto& [name, value] : body.items()) {
    if (!head.contains(name)) head[name] = value;
  }
  return head;
}

ordered_json WithFigures(const v1::Progress& progress, std::string_view outcome,
                         std::string_view error) {
  const ordered_json figures = ToJson(progress);
  return Joined(Head(progress.vm(), outcome, figures["state"], error), figures);
}

void PrintJsonLine(const ordered_json& json) {
  absl::PrintF("%s\n", json.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
  std::fflush(stdout);
}

void PrintJson(const ordered_json& json) {
  absl::PrintF("%s\n", json.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  std::fflush(stdout);
}

}  // namespace postcopy
