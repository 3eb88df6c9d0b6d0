// Which key of a key-value server is asked for: few come often, by Zipf.
//
// Pure: randomness is an argument. What a key's value is says kv_model.h.
#ifndef POSTCOPY_LAB_LOAD_KEY_CHOICE_H_
#define POSTCOPY_LAB_LOAD_KEY_CHOICE_H_

#include <cstdint>
#include <vector>

#include "choice.h"
#include "random.h"

namespace postcopy_lab {

class KeyChoice {
 public:
  // The n-th most frequent of the keys 0 … keys-1 has a share of 1 / n^exponent. Which keys are
  // frequent is random too: keys that were stored one after the other, and so lie side by side in
  // the server's memory, have nothing in common. REQUIRES: keys > 0.
  KeyChoice(uint32_t keys, double exponent, Random& random);

  uint32_t Draw(Random& random) const { return key_[rank_.Draw(random)]; }

 private:
  const Choice rank_;
  std::vector<uint32_t> key_;  // of each rank
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_KEY_CHOICE_H_
