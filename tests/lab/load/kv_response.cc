#include "kv_response.h"

#include <algorithm>
#include <charconv>

namespace postcopy_lab {
namespace {

constexpr std::string_view kEndOfLine = "\r\n";
constexpr std::string_view kValueName = "VALUE ";
constexpr size_t kMaxLineBytes = 1024;          // a key has at most 250
constexpr size_t kMaxValueBytes = 1024 * 1024;  // memcached's own limit

}  // namespace

void KvResponse::Reset() {
  state_ = State::kLine;
  line_.clear();
  has_value_ = false;
  key_.clear();
  value_.clear();
  problem_.clear();
}

void KvResponse::Finish(Kind kind) {
  kind_ = kind;
  state_ = State::kDone;
}

void KvResponse::Reject(std::string problem) {
  problem_ = std::move(problem);
  state_ = State::kMalformed;
}

size_t KvResponse::Feed(std::span<const char> bytes) {
  const std::string_view all(bytes.data(), bytes.size());
  size_t taken = 0;
  while (taken < all.size() && (state_ == State::kLine || state_ == State::kValue)) {
    const std::string_view left = all.substr(taken);
    taken += state_ == State::kLine ? FeedLine(left) : FeedValue(left);
  }
  return taken;
}

// Takes bytes up to the end of the line.
size_t KvResponse::FeedLine(std::string_view bytes) {
  const size_t feed = bytes.find('\n');
  const size_t take = feed == std::string_view::npos ? bytes.size() : feed + 1;
  line_ += bytes.substr(0, take);
  if (line_.size() > kMaxLineBytes) {
    Reject("line is too long");
  } else if (line_.ends_with(kEndOfLine)) {
    line_.resize(line_.size() - kEndOfLine.size());
    TakeLine();
    line_.clear();
  } else if (feed != std::string_view::npos) {
    Reject("line ends without a carriage return");
  }
  return take;
}

void KvResponse::TakeLine() {
  if (line_ == "END") {
    Finish(has_value_ ? Kind::kValue : Kind::kMiss);
  } else if (has_value_) {
    Reject("value is not followed by END");
  } else if (line_ == "STORED") {
    Finish(Kind::kStored);
  } else if (line_.starts_with(kValueName)) {
    TakeValueLine();
  } else {
    problem_ = line_;
    Finish(Kind::kError);
  }
}

// "VALUE <key> <flags> <bytes>"
void KvResponse::TakeValueLine() {
  const size_t key_end = line_.find(' ', kValueName.size());
  const size_t flags_end = key_end == std::string::npos ? key_end : line_.find(' ', key_end + 1);
  if (flags_end == std::string::npos) return Reject("VALUE line is incomplete");
  const char* end = line_.data() + line_.size();
  const auto number = std::from_chars(line_.data() + flags_end + 1, end, value_bytes_);
  if (number.ec != std::errc() || number.ptr != end || value_bytes_ > kMaxValueBytes) {
    return Reject("length of the value is not one");
  }
  key_ = line_.substr(kValueName.size(), key_end - kValueName.size());
  state_ = State::kValue;
}

// Takes bytes up to the end of the value and of its line.
size_t KvResponse::FeedValue(std::string_view bytes) {
  const size_t wanted = value_bytes_ + kEndOfLine.size() - value_.size();
  const size_t take = std::min(wanted, bytes.size());
  value_ += bytes.substr(0, take);
  if (take < wanted) return take;
  if (!value_.ends_with(kEndOfLine)) {
    Reject("value is longer than announced");
    return take;
  }
  value_.resize(value_bytes_);
  has_value_ = true;
  state_ = State::kLine;
  return take;
}

}  // namespace postcopy_lab
