// Text that came from another process or host, made safe to show, to log and to send on: valid UTF-8 on
// one line, without anything that a terminal or a log would obey.
//
// Not responsible for its length.
#pragma once

#include <string>
#include <string_view>

namespace postcopy {

// `text` with each byte that is not part of valid UTF-8 written as \xNN, and so each control character
// (newline, tab and escape among them); characters that change the direction or the lines of text as
// \uNNNN. What is returned is its own PrintableText().
std::string PrintableText(std::string_view text);

// Whether `text` is its own PrintableText().
bool IsPrintable(std::string_view text);

}  // namespace postcopy
