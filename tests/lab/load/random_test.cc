#include "tests/lab/load/random.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace postcopy_lab {
namespace {

constexpr int kDraws = 200'000;

TEST(Random, ExponentialHasItsMeanAndAnEnd) {
  Random random(1);
  double sum = 0, longest = 0;
  for (int i = 0; i < kDraws; ++i) {
    const double time = random.Exponential(2);
    sum += time;
    longest = std::max(longest, time);
  }
  EXPECT_NEAR(sum / kDraws, 2, 0.05);
  EXPECT_LE(longest, 30);
}

TEST(Random, TheSameSeedGivesTheSameNumbers) {
  Random first(3), second(3), other(4);
  for (int i = 0; i < 100; ++i) {
    const uint64_t next = first.Next();
    EXPECT_EQ(next, second.Next());
    EXPECT_NE(next, other.Next());
  }
}

}  // namespace
}  // namespace postcopy_lab
