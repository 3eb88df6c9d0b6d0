#include "tests/lab/load/key_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace postcopy_lab {
namespace {

constexpr uint32_t kKeys = 1000;
constexpr int kDraws = 200'000;

std::vector<int> Counts(uint64_t seed) {
  Random random(seed);
  const KeyChoice choice(kKeys, 1.0, random);
  std::vector<int> counts(kKeys);
  for (int i = 0; i < kDraws; ++i) ++counts[choice.Draw(random)];
  return counts;
}

TEST(KeyChoice, FrequentKeysLieApart) {
  const std::vector<int> counts = Counts(7);
  std::vector<int> ordered = counts;
  std::sort(ordered.begin(), ordered.end(), std::greater<>());
  EXPECT_NEAR(ordered[1], ordered[0] / 2, kDraws / 200);
  int frequent_neighbours = 0;
  for (size_t key = 1; key < kKeys; ++key) {
    frequent_neighbours += counts[key - 1] >= ordered[20] && counts[key] >= ordered[20];
  }
  EXPECT_LT(frequent_neighbours, 5);
}

TEST(KeyChoice, TheSeedDecides) {
  EXPECT_EQ(Counts(1), Counts(1));
  EXPECT_NE(Counts(1), Counts(2));
}

}  // namespace
}  // namespace postcopy_lab
