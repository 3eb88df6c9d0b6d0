#include "tests/lab/load/choice.h"

#include <gtest/gtest.h>

namespace postcopy_lab {
namespace {

constexpr int kDraws = 200'000;

std::vector<int> Counts(const Choice& choice, uint32_t count) {
  Random random(7);
  std::vector<int> counts(count);
  for (int i = 0; i < kDraws; ++i) ++counts[choice.Draw(random)];
  return counts;
}

TEST(Choice, EachHasItsShareOfAllWeights) {
  const std::vector<int> counts = Counts(Choice({1, 0, 3}), 3);
  EXPECT_NEAR(counts[0], kDraws / 4, kDraws / 200);
  EXPECT_EQ(counts[1], 0);
}

TEST(Choice, TheSecondOfZipfComesHalfAsOftenAsTheFirst) {
  const std::vector<int> counts = Counts(Choice::Zipf(1000, 1.0), 1000);
  EXPECT_NEAR(counts[0], kDraws / 7.485, kDraws / 200);  // 7.485: the 1000th harmonic number
  EXPECT_NEAR(counts[1], counts[0] / 2, kDraws / 200);
}

TEST(Choice, WithoutAnExponentAllAreEqual) {
  for (const int count : Counts(Choice::Zipf(10, 0), 10)) {
    EXPECT_NEAR(count, kDraws / 10, kDraws / 100);
  }
}

}  // namespace
}  // namespace postcopy_lab
