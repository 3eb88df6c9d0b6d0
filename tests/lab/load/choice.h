// A choice among numbered things of given weights.
//
// Pure: randomness is an argument.
#ifndef POSTCOPY_LAB_LOAD_CHOICE_H_
#define POSTCOPY_LAB_LOAD_CHOICE_H_

#include <cstdint>
#include <vector>

#include "random.h"

namespace postcopy_lab {

class Choice {
 public:
  // REQUIRES: weights not empty, none negative, their sum positive.
  explicit Choice(const std::vector<double>& weights);
  // Thing number i, from 0, has weight 1 / (i + 1)^exponent; an exponent of 0 makes all equal.
  // REQUIRES: count > 0.
  static Choice Zipf(uint32_t count, double exponent);

  uint32_t Draw(Random& random) const;

 private:
  std::vector<double> up_to_;  // shares of all things up to that number; the last is 1
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_CHOICE_H_
