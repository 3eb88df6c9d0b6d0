// What another program says in a message, made printable: names, states, errors, reports.
#pragma once

#include <google/protobuf/message.h>

namespace postcopy {

// Replaces every string of the message, and of the messages in it, by its PrintableText(). A string
// that is not valid UTF-8 would make the receiver refuse the whole message. Not `bytes` fields.
void MakePrintable(google::protobuf::Message& message);

}  // namespace postcopy
