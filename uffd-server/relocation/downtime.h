// How long a guest stood still, from STOP at the source to RESUME at the destination.
//
// Two hosts' wall clocks differ, so neither is used for it. The source measures on its steady clock
// from STOP until the destination's answer that the guest runs is here; the destination says, on its
// own steady clock, how long ago RESUME was when it answered; the difference is the downtime. It is
// too long by the time that the answer was on its way (one direction of the link), and never too
// short. The clocks' rates differ by parts in a million, which does not matter here.
//
// Pure.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>

namespace postcopy {

// When an event within the steady time from `begun` to `ended` was, of which the VMM says the
// wall-clock time `event_us`; it is `wall_now_us` at `ended`. A wall clock that was set meanwhile
// moves the result within these bounds only. Microseconds since the epoch.
inline std::chrono::steady_clock::time_point SteadyTimeOf(
    int64_t event_us, int64_t wall_now_us, std::chrono::steady_clock::time_point begun,
    std::chrono::steady_clock::time_point ended) {
  const auto call = std::chrono::duration_cast<std::chrono::microseconds>(ended - begun);
  // In this order: a stamp may be any number.
  int64_t ago_us = 0;
  if (__builtin_sub_overflow(wall_now_us, event_us, &ago_us)) ago_us = call.count();
  return ended - std::chrono::microseconds(std::clamp<int64_t>(ago_us, 0, call.count()));
}

// In milliseconds; nothing: the destination names a time before STOP, so it means nothing.
inline std::optional<double> DowntimeMs(std::chrono::steady_clock::time_point stopped,
                                        std::chrono::steady_clock::time_point answered,
                                        std::chrono::microseconds since_resume) {
  const auto since_stop = answered - stopped;
  // As microseconds: a peer may name any number of them.
  if (since_resume.count() < 0 ||
      since_resume > std::chrono::ceil<std::chrono::microseconds>(since_stop)) {
    return std::nullopt;
  }
  return std::chrono::duration<double, std::milli>(since_stop - since_resume).count();
}

}  // namespace postcopy
