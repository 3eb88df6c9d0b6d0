#include "control/printable_message.h"

#include <google/protobuf/descriptor.h>

#include <string>
#include <vector>

#include "core/printable_text.h"

namespace postcopy {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

void MakeTextPrintable(Message& message, const Reflection& access, const FieldDescriptor* field) {
  if (!field->is_repeated()) {
    const std::string text = access.GetString(message, field);
    if (!IsPrintable(text)) access.SetString(&message, field, PrintableText(text));
    return;
  }
  for (int i = 0; i < access.FieldSize(message, field); ++i) {
    const std::string text = access.GetRepeatedString(message, field, i);
    if (!IsPrintable(text)) access.SetRepeatedString(&message, field, i, PrintableText(text));
  }
}

void MakeMessagesPrintable(Message& message, const Reflection& access,
                           const FieldDescriptor* field) {
  if (!field->is_repeated()) return MakePrintable(*access.MutableMessage(&message, field));
  for (int i = 0; i < access.FieldSize(message, field); ++i) {
    MakePrintable(*access.MutableRepeatedMessage(&message, field, i));
  }
}

}  // namespace

void MakePrintable(Message& message) {
  const Reflection& access = *message.GetReflection();
  std::vector<const FieldDescriptor*> fields;
  access.ListFields(message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->type() == FieldDescriptor::TYPE_STRING) {
      MakeTextPrintable(message, access, field);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      MakeMessagesPrintable(message, access, field);
    }
  }
}

}  // namespace postcopy
