#include "core/histogram.h"

#include <algorithm>
#include <limits>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

using std::chrono::nanoseconds;

TEST(HistogramTest, EmptyOneSaysZero) {
  const Histogram histogram;
  EXPECT_EQ(histogram.count(), 0u);
  EXPECT_EQ(histogram.QuantileUs(0.5), 0);
  EXPECT_EQ(histogram.max_us(), 0);
}

TEST(HistogramTest, OneValueIsEveryQuantile) {
  Histogram histogram;
  histogram.Add(std::chrono::microseconds(62));
  for (const double q : {0.01, 0.5, 0.99, 1.0}) EXPECT_DOUBLE_EQ(histogram.QuantileUs(q), 62.0);
}

TEST(HistogramTest, QuantilesAreAtMostAnEighthAboveTheTrueOnes) {
  std::mt19937_64 random(1);
  std::vector<double> values;
  Histogram histogram;
  for (int i = 0; i < 10000; ++i) {
    const auto ns = static_cast<int64_t>(random() >> (20 + random() % 40));
    values.push_back(static_cast<double>(ns) / 1000.0);
    histogram.Add(nanoseconds(ns));
  }
  std::sort(values.begin(), values.end());
  for (const double q : {0.01, 0.1, 0.5, 0.9, 0.99, 1.0}) {
    const double exact = values[static_cast<size_t>(q * 10000) - 1];
    EXPECT_GE(histogram.QuantileUs(q), exact) << q;
    EXPECT_LE(histogram.QuantileUs(q), exact * 1.125 + 0.001) << q;
  }
}

TEST(HistogramTest, ExtremesDoNotLeaveTheBuckets) {
  Histogram histogram;
  histogram.Add(nanoseconds(-5));
  histogram.Add(nanoseconds(0));
  histogram.Add(nanoseconds(std::numeric_limits<int64_t>::max()));
  EXPECT_EQ(histogram.count(), 3u);
  EXPECT_EQ(histogram.QuantileUs(0.1), 0);
  EXPECT_GT(histogram.QuantileUs(1.0), 9e15);
}

}  // namespace
}  // namespace postcopy
