// Random numbers of which few come often: the n-th most frequent with a share of 1 / n^exponent.
//
// Pure; the same seed gives the same numbers.
#ifndef POSTCOPY_LAB_LOAD_ZIPF_H_
#define POSTCOPY_LAB_LOAD_ZIPF_H_

#include <cstdint>
#include <vector>

namespace postcopy_lab {

// One thread. Which numbers are frequent is random too, so that neighbours have nothing in common.
class Zipf {
 public:
  // Numbers 0 … count-1. An exponent of 0 makes all equally frequent. REQUIRES: count > 0.
  Zipf(uint32_t count, double exponent, uint64_t seed);

  uint32_t Next();

 private:
  uint64_t Random();

  uint64_t random_;
  std::vector<double> up_to_;     // the share of all ranks up to this one; the last is 1
  std::vector<uint32_t> number_;  // of each rank
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_ZIPF_H_
