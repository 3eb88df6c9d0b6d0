#include "relocation/downtime.h"

#include <gtest/gtest.h>

namespace postcopy {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::seconds;
using Clock = std::chrono::steady_clock;

const Clock::time_point kBegun = Clock::time_point{} + seconds(1000);
const Clock::time_point kEnded = kBegun + milliseconds(20);
constexpr int64_t kWallUs = 1'700'000'000'000'000;

TEST(DowntimeTest, AnEventIsAsOldAsTheWallClockOfItsHostSays) {
  EXPECT_EQ(SteadyTimeOf(kWallUs - 5'000, kWallUs, kBegun, kEnded), kEnded - milliseconds(5));
  EXPECT_EQ(SteadyTimeOf(kWallUs, kWallUs, kBegun, kEnded), kEnded);
}

TEST(DowntimeTest, AWallClockThatWasSetMeanwhileMovesItWithinTheCallOnly) {
  const int64_t hour_us = 3'600'000'000;
  EXPECT_EQ(SteadyTimeOf(kWallUs - hour_us, kWallUs, kBegun, kEnded), kBegun);
  EXPECT_EQ(SteadyTimeOf(kWallUs + hour_us, kWallUs, kBegun, kEnded), kEnded);
  EXPECT_EQ(SteadyTimeOf(INT64_MIN, kWallUs, kBegun, kEnded), kBegun);
  EXPECT_EQ(SteadyTimeOf(INT64_MAX, INT64_MIN, kBegun, kEnded), kBegun);
}

TEST(DowntimeTest, ItIsTheSourcesTimeLessWhatHasPassedAtTheDestination) {
  EXPECT_EQ(DowntimeMs(kBegun, kEnded, microseconds(0)), 20.0);
  EXPECT_EQ(DowntimeMs(kBegun, kEnded, milliseconds(12)), 8.0);
  EXPECT_EQ(DowntimeMs(kBegun, kEnded, milliseconds(20)), 0.0);
}

TEST(DowntimeTest, ATimeBeforeTheStopIsNotBelieved) {
  EXPECT_EQ(DowntimeMs(kBegun, kEnded, milliseconds(21)), std::nullopt);
  EXPECT_EQ(DowntimeMs(kBegun, kEnded, microseconds(-1)), std::nullopt);
  EXPECT_EQ(DowntimeMs(kBegun, kEnded, microseconds::max()), std::nullopt);
}

}  // namespace
}  // namespace postcopy
