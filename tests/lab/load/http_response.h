// Reads HTTP/1.1 responses from bytes that come in any chunks.
//
// Pure: no socket, no clock. Knows only what a server of static files sends: a status line, headers
// with Content-Length, a body. No chunked encoding, no trailers, no responses without a length.
#ifndef POSTCOPY_LAB_LOAD_HTTP_RESPONSE_H_
#define POSTCOPY_LAB_LOAD_HTTP_RESPONSE_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace postcopy_lab {

// One response at a time; one thread.
class HttpResponse {
 public:
  enum class State { kHeader, kBody, kDone, kMalformed };

  // Forgets the response: the next byte fed is the first of another one.
  void Reset();

  // Takes `bytes` in order. Body bytes are passed to `body` (valid only during that call), all of
  // them exactly once. Bytes after the end of the response make it kMalformed, since the client
  // never has two requests on the way. After kMalformed nothing more is taken.
  State Feed(std::span<const char> bytes, const std::function<void(std::span<const char>)>& body);

  State state() const { return state_; }
  // What is wrong with a kMalformed response.
  const std::string& problem() const { return problem_; }
  // Valid from kBody on.
  int status() const { return status_; }
  uint64_t length_bytes() const { return length_bytes_; }

 private:
  bool ParseHeader();
  State Reject(std::string problem);

  State state_ = State::kHeader;
  std::string header_;
  std::string problem_;
  int status_ = 0;
  uint64_t length_bytes_ = 0;
  uint64_t received_bytes_ = 0;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_HTTP_RESPONSE_H_
