#include "cli/json_output.h"

#include <cstdio>

#include "absl/strings/str_format.h"

namespace postcopy {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using nlohmann::ordered_json;

ordered_json Single(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64: return reflection.GetInt64(message, &field);
    case FieldDescriptor::CPPTYPE_UINT32: return reflection.GetUInt32(message, &field);
    case FieldDescriptor::CPPTYPE_UINT64: return reflection.GetUInt64(message, &field);
    case FieldDescriptor::CPPTYPE_DOUBLE: return reflection.GetDouble(message, &field);
    case FieldDescriptor::CPPTYPE_FLOAT: return reflection.GetFloat(message, &field);
    case FieldDescriptor::CPPTYPE_BOOL: return reflection.GetBool(message, &field);
    case FieldDescriptor::CPPTYPE_ENUM: return reflection.GetEnum(message, &field)->name();
    case FieldDescriptor::CPPTYPE_STRING: return reflection.GetString(message, &field);
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

void PrintJson(const ordered_json& json) {
  absl::PrintF("%s\n", json.dump(2, ' ', false, ordered_json::error_handler_t::replace));
  std::fflush(stdout);
}

}  // namespace postcopy
