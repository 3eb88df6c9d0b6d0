// A seeded stream of random numbers: SplitMix64.
#ifndef POSTCOPY_LAB_LOAD_RANDOM_H_
#define POSTCOPY_LAB_LOAD_RANDOM_H_

#include <cmath>
#include <cstdint>

#include "content.h"

namespace postcopy_lab {

// The same seed gives the same numbers on every machine. One thread.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(lab_mix64(seed)) {}

  uint64_t Next() { return lab_mix64(state_ += kLabGolden); }
  // In [0, 1).
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }
  // Exponentially distributed; no more than 15 times the mean, which 3 in 10 million would be.
  double Exponential(double mean) { return mean * std::fmin(-std::log1p(-Uniform()), 15); }

 private:
  uint64_t state_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_RANDOM_H_
