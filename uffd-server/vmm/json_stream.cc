#include "vmm/json_stream.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "vmm/json_access.h"

namespace postcopy {
namespace {

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

// How many bytes of a string come before the next that ends or escapes something.
size_t PlainBytes(std::string_view text) {
  text = text.substr(0, text.find('"'));
  return std::min(text.find('\\'), text.size());
}

absl::Status NoObject() {
  return absl::InvalidArgumentError(absl::StrFormat(
      "something was sent that is not a JSON object of at most %d levels", kMaxJsonLevels));
}

}  // namespace

bool JsonStream::Ends(char c) {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
    }
    return false;
  }
  if (c == '"') in_string_ = true;
  if (c == '{' || c == '[') ++levels_;
  return (c == '}' || c == ']') && --levels_ == 0;
}

absl::Status JsonStream::Feed(std::string_view bytes,
                              const std::function<absl::Status(std::string_view object)>& take) {
  size_t begin = 0;  // of what belongs to the object that is not complete
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (levels_ == 0) {
      begin = i;
      if (IsSpace(bytes[i])) continue;
      if (bytes[i] != '{') return NoObject();
    }
    // Most of a long message is the inside of strings.
    if (in_string_ && !escaped_) i += PlainBytes(bytes.substr(i));
    const bool ends = i < bytes.size() && Ends(bytes[i]);
    const size_t end = std::min(i + 1, bytes.size());
    if (partial_.size() + (end - begin) > max_bytes_) {
      return absl::InvalidArgumentError(
          absl::StrFormat("a JSON object was sent that is longer than %d bytes", max_bytes_));
    }
    if (levels_ > kMaxJsonLevels) return NoObject();
    if (!ends) continue;
    partial_.append(bytes.substr(begin, end - begin));
    const absl::Status taken = take(partial_);
    if (!taken.ok()) return taken;
    partial_.clear();
    begin = end;
  }
  if (levels_ > 0) partial_.append(bytes.substr(begin));
  return absl::OkStatus();
}

}  // namespace postcopy
