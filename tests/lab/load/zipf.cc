#include "zipf.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "content.h"

namespace postcopy_lab {

Zipf::Zipf(uint32_t count, double exponent, uint64_t seed)
    : random_(lab_mix64(seed)), up_to_(count), number_(count) {
  double sum = 0;
  for (uint32_t rank = 0; rank < count; ++rank) {
    up_to_[rank] = sum += std::pow(rank + 1.0, -exponent);
  }
  for (double& share : up_to_) share /= sum;
  std::iota(number_.begin(), number_.end(), 0);
  for (uint32_t i = count - 1; i > 0; --i) std::swap(number_[i], number_[Random() % (i + 1)]);
}

uint64_t Zipf::Random() { return lab_mix64(random_ += kLabGolden); }

uint32_t Zipf::Next() {
  const double at = static_cast<double>(Random() >> 11) * 0x1p-53;  // of [0, 1)
  const auto rank = std::upper_bound(up_to_.begin(), up_to_.end(), at) - up_to_.begin();
  return number_[static_cast<size_t>(rank)];
}

}  // namespace postcopy_lab
