// A histogram of durations: buckets grow by 1/8 of a power of two, so a quantile is off by at most
// 12.5 %. Fixed memory, no allocation. Not thread-safe.
#pragma once

#include <array>
#include <bit>
#include <chrono>
#include <cstdint>

namespace postcopy {

class Histogram {
 public:
  void Add(std::chrono::nanoseconds duration) {
    const uint64_t ns = duration.count() > 0 ? static_cast<uint64_t>(duration.count()) : 0;
    ++buckets_[BucketOf(ns)];
    ++count_;
    if (ns > max_ns_) max_ns_ = ns;
  }
  uint64_t count() const { return count_; }
  double max_us() const { return static_cast<double>(max_ns_) / 1000.0; }
  // Upper bound of the bucket that holds the quantile `q` (0..1], in microseconds; 0 if empty.
  double QuantileUs(double q) const {
    const auto rank = static_cast<uint64_t>(q * static_cast<double>(count_) + 0.5);
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
      seen += buckets_[bucket];
      if (seen > 0 && seen >= rank) {
        const double bound = static_cast<double>(UpperBound(bucket)) / 1000.0;
        return bound < max_us() ? bound : max_us();
      }
    }
    return 0;
  }

 private:
  static constexpr size_t kSteps = 8;
  static constexpr size_t kBuckets = 64 * kSteps;

  static size_t BucketOf(uint64_t ns) {
    if (ns < kSteps) return static_cast<size_t>(ns);
    const auto exponent = static_cast<size_t>(std::bit_width(ns)) - 1;  // >= 3
    return (exponent - 2) * kSteps + static_cast<size_t>((ns >> (exponent - 3)) & (kSteps - 1));
  }
  static uint64_t UpperBound(size_t bucket) {
    if (bucket < kSteps) return bucket;
    const size_t exponent = bucket / kSteps + 2;
    return ((kSteps + bucket % kSteps + 1) << (exponent - 3)) - 1;
  }

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t max_ns_ = 0;
};

}  // namespace postcopy
