#include "key_choice.h"

#include <numeric>
#include <utility>

namespace postcopy_lab {

KeyChoice::KeyChoice(uint32_t keys, double exponent, Random& random)
    : rank_(Choice::Zipf(keys, exponent)), key_(keys) {
  std::iota(key_.begin(), key_.end(), 0);
  for (uint32_t i = keys - 1; i > 0; --i) std::swap(key_[i], key_[random.Next() % (i + 1)]);
}

}  // namespace postcopy_lab
