#include "choice.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace postcopy_lab {

Choice::Choice(const std::vector<double>& weights) : up_to_(weights.size()) {
  std::partial_sum(weights.begin(), weights.end(), up_to_.begin());
  const double sum = up_to_.back();
  for (double& share : up_to_) share /= sum;
}

Choice Choice::Zipf(uint32_t count, double exponent) {
  std::vector<double> weights(count);
  for (uint32_t i = 0; i < count; ++i) weights[i] = std::pow(i + 1.0, -exponent);
  return Choice(weights);
}

uint32_t Choice::Draw(Random& random) const {
  const auto place = std::upper_bound(up_to_.begin(), up_to_.end(), random.Uniform());
  return static_cast<uint32_t>(place - up_to_.begin());
}

}  // namespace postcopy_lab
