// Reads responses of memcached's text protocol from bytes that come in any chunks.
//
// Pure: no socket, no clock. Knows the responses to `get` of one key and to `set`.
#ifndef POSTCOPY_LAB_LOAD_KV_RESPONSE_H_
#define POSTCOPY_LAB_LOAD_KV_RESPONSE_H_

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace postcopy_lab {

// One response at a time; one thread.
class KvResponse {
 public:
  enum class State { kLine, kValue, kDone, kMalformed };
  enum class Kind {
    kStored,  // STORED
    kValue,   // VALUE … END: see key() and value()
    kMiss,    // END
    kError,   // any other line, see problem(): the request was not done
  };

  // Forgets the response: the next byte fed is the first of another one.
  void Reset();

  // Takes bytes up to the end of the response, and returns how many these were: fewer than
  // `bytes` has if another response follows. After kDone and kMalformed nothing is taken.
  size_t Feed(std::span<const char> bytes);

  State state() const { return state_; }
  // The others are valid when kDone.
  Kind kind() const { return kind_; }
  const std::string& key() const { return key_; }
  const std::string& value() const { return value_; }
  // What is wrong with a kMalformed response, or the line of a kError.
  const std::string& problem() const { return problem_; }

 private:
  size_t FeedLine(std::string_view bytes);
  size_t FeedValue(std::string_view bytes);
  void TakeLine();
  void TakeValueLine();
  void Finish(Kind kind);
  void Reject(std::string problem);

  State state_ = State::kLine;
  Kind kind_ = Kind::kError;
  std::string line_;
  bool has_value_ = false;
  size_t value_bytes_ = 0;  // announced
  std::string key_;
  std::string value_;
  std::string problem_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_KV_RESPONSE_H_
