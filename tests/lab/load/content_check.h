// Checks a body against what its key says it must be, byte by byte, as it comes.
//
// Pure. What a body must be says web_content.h.
#ifndef POSTCOPY_LAB_LOAD_CONTENT_CHECK_H_
#define POSTCOPY_LAB_LOAD_CONTENT_CHECK_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "web_content.h"

namespace postcopy_lab {

class ContentCheck {
 public:
  // The next byte fed is the first of the body with this key.
  void Start(uint64_t key) {
    key_ = key;
    bytes_ = 0;
    right_ = true;
  }

  void Feed(std::span<const char> bytes) {
    while (!bytes.empty()) {
      const uint64_t word = lab_web_word(key_, bytes_ / sizeof(uint64_t));
      const size_t offset = bytes_ % sizeof word;
      const size_t count = std::min(bytes.size(), sizeof word - offset);
      const char* wanted = reinterpret_cast<const char*>(&word) + offset;
      right_ = right_ && std::memcmp(wanted, bytes.data(), count) == 0;
      bytes_ += count;
      bytes = bytes.subspan(count);
    }
  }

  uint64_t bytes() const { return bytes_; }
  // Whether all bytes so far were right.
  bool right() const { return right_; }

 private:
  uint64_t key_ = 0;
  uint64_t bytes_ = 0;
  bool right_ = true;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_CONTENT_CHECK_H_
