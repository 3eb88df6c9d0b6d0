#include "tests/lab/load/zipf.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

namespace postcopy_lab {
namespace {

constexpr int kDraws = 200'000;

// How often each number came, from the most frequent on.
std::vector<int> Counts(uint32_t count, double exponent) {
  Zipf zipf(count, exponent, 7);
  std::vector<int> counts(count);
  for (int i = 0; i < kDraws; ++i) ++counts[zipf.Next()];
  std::sort(counts.begin(), counts.end(), std::greater<>());
  return counts;
}

TEST(Zipf, TheSecondComesHalfAsOftenAsTheFirst) {
  const std::vector<int> counts = Counts(1000, 1.0);
  EXPECT_NEAR(counts[0], kDraws / 7.485, kDraws / 200);  // 7.485: the 1000th harmonic number
  EXPECT_NEAR(counts[1], counts[0] / 2, kDraws / 200);
}

TEST(Zipf, WithoutAnExponentAllAreEqual) {
  const std::vector<int> counts = Counts(10, 0);
  EXPECT_NEAR(counts.front(), kDraws / 10, kDraws / 100);
  EXPECT_NEAR(counts.back(), kDraws / 10, kDraws / 100);
}

TEST(Zipf, TheSeedDecides) {
  Zipf one(100, 0.99, 1), same(100, 0.99, 1), other(100, 0.99, 2);
  int different = 0;
  for (int i = 0; i < 100; ++i) {
    const uint32_t next = one.Next();
    EXPECT_EQ(next, same.Next());
    different += next != other.Next();
  }
  EXPECT_GT(different, 50);
}

}  // namespace
}  // namespace postcopy_lab
