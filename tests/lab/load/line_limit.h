// A visitor's line: how many bytes of a response have had time to arrive over it.
//
// Pure: time is an argument. A response that was held up catches up, as the bytes that wait at the
// near end of a line do.
#ifndef POSTCOPY_LAB_LOAD_LINE_LIMIT_H_
#define POSTCOPY_LAB_LOAD_LINE_LIMIT_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>

namespace postcopy_lab {

class LineLimit {
 public:
  using Clock = std::chrono::steady_clock;

  // A request is sent; its response comes with no more than `bytes_per_s`. 0: no limit.
  void Start(Clock::time_point now, uint64_t bytes_per_s) {
    sent_ = now;
    bytes_per_s_ = static_cast<double>(bytes_per_s);
  }

  // How many more bytes may be taken of a response of which `taken` have been.
  uint64_t Allowance(Clock::time_point now, uint64_t taken) const {
    if (bytes_per_s_ == 0) return std::numeric_limits<uint64_t>::max();
    const double arrived =
        kSegmentBytes + bytes_per_s_ * std::chrono::duration<double>(now - sent_).count();
    return arrived <= static_cast<double>(taken) ? 0 : static_cast<uint64_t>(arrived) - taken;
  }

  // When to look again: all `length` bytes have had time then, or some while has passed.
  Clock::time_point NextLook(Clock::time_point now, uint64_t length) const {
    const double left = std::max(0.0, static_cast<double>(length) - kSegmentBytes);
    const auto whole = sent_ + std::chrono::duration_cast<Clock::duration>(
                                   std::chrono::duration<double>(left / bytes_per_s_));
    return std::clamp(whole, now + std::chrono::microseconds(100), now + kLongestRest);
  }

 private:
  static constexpr double kSegmentBytes = 1448;  // arrive as one
  static constexpr std::chrono::milliseconds kLongestRest{20};

  Clock::time_point sent_{};
  double bytes_per_s_ = 0;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_LINE_LIMIT_H_
