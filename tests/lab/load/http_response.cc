#include "http_response.h"

#include <strings.h>

#include <algorithm>
#include <charconv>
#include <string_view>

namespace postcopy_lab {
namespace {

constexpr size_t kMaxHeaderBytes = 16384;
constexpr std::string_view kEndOfHeader = "\r\n\r\n";
constexpr std::string_view kLengthName = "content-length:";

template <typename Number>
bool ParseNumber(std::string_view text, Number* number) {
  const auto result = std::from_chars(text.data(), text.data() + text.size(), *number);
  return result.ec == std::errc() && result.ptr == text.data() + text.size();
}

}  // namespace

void HttpResponse::Reset() {
  state_ = State::kHeader;
  header_.clear();
  status_ = 0;
  length_bytes_ = received_bytes_ = 0;
}

HttpResponse::State HttpResponse::Reject(std::string problem) {
  problem_ = std::move(problem);
  return state_ = State::kMalformed;
}

HttpResponse::State HttpResponse::Feed(std::span<const char> bytes,
                                       const std::function<void(std::span<const char>)>& body) {
  if (state_ == State::kHeader) {
    const size_t before = header_.size();
    header_.append(bytes.data(), bytes.size());
    const size_t end =
        header_.find(kEndOfHeader, before < kEndOfHeader.size() ? 0 : before - kEndOfHeader.size());
    if (end == std::string::npos) {
      return header_.size() > kMaxHeaderBytes ? Reject("header is too long") : state_;
    }
    bytes = bytes.subspan(end + kEndOfHeader.size() - before);
    header_.resize(end + 2);
    if (!ParseHeader()) return state_;
    state_ = length_bytes_ == 0 ? State::kDone : State::kBody;
  }
  if (state_ == State::kBody) {
    const size_t take = std::min<uint64_t>(bytes.size(), length_bytes_ - received_bytes_);
    if (take > 0) body(bytes.first(take));
    received_bytes_ += take;
    bytes = bytes.subspan(take);
    if (received_bytes_ == length_bytes_) state_ = State::kDone;
  }
  if (!bytes.empty() && state_ != State::kMalformed) return Reject("bytes after its end");
  return state_;
}

bool HttpResponse::ParseHeader() {
  const std::string_view header = header_;
  // "HTTP/1.1 200 OK"
  if (!header.starts_with("HTTP/1.1 ") || !ParseNumber(header.substr(9, 3), &status_)) {
    Reject("status line is not HTTP/1.1");
    return false;
  }
  bool has_length = false;
  for (size_t start = header.find("\r\n") + 2; start < header.size();) {
    const size_t end = header.find("\r\n", start);
    std::string_view line = header.substr(start, end - start);
    start = end + 2;
    if (line.size() < kLengthName.size() ||
        strncasecmp(line.data(), kLengthName.data(), kLengthName.size()) != 0) {
      continue;
    }
    line.remove_prefix(kLengthName.size());
    line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
    has_length = ParseNumber(line, &length_bytes_);
  }
  if (!has_length) Reject("no Content-Length");
  return has_length;
}

}  // namespace postcopy_lab
