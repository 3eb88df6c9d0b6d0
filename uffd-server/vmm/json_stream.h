// JSON objects out of a stream of bytes, however it is cut: on one line each or over many (QEMU's
// `-mon pretty=on`), with or without space between them.
//
// Finds where each object ends; whether it is valid JSON is the reader's to find out.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace postcopy {

class JsonStream {
 public:
  // An object of more than `max_bytes` is an error.
  explicit JsonStream(size_t max_bytes) : max_bytes_(max_bytes) {}

  // Takes the next bytes and calls `take` with each object that they complete. Stops at the first
  // error: of `take`, or kInvalidArgument where there is something else than an object, one that is
  // too large, or one of more than kMaxJsonLevels. It is of no more use then.
  absl::Status Feed(std::string_view bytes,
                    const std::function<absl::Status(std::string_view object)>& take);

 private:
  // Whether `c` is the last character of an object.
  bool Ends(char c);

  const size_t max_bytes_;
  std::string partial_;  // an object's beginning
  size_t levels_ = 0;    // that are open in it
  bool in_string_ = false;
  bool escaped_ = false;  // the next character of the string is
};

}  // namespace postcopy
