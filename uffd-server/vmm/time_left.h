// What is left of a deadline, for calls that take a time-out.
#pragma once

#include <algorithm>
#include <chrono>

namespace postcopy {

// Rounded up, so that a call with it does not return before the deadline; 0 from the deadline on.
inline std::chrono::milliseconds TimeLeft(std::chrono::steady_clock::time_point deadline) {
  const auto left = std::chrono::ceil<std::chrono::milliseconds>(
      deadline - std::chrono::steady_clock::now());
  return std::max(left, std::chrono::milliseconds::zero());
}

}  // namespace postcopy
