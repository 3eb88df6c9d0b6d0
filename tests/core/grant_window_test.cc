#include "core/grant_window.h"

#include <deque>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

// A link that carries granted runs one behind the other at `bytes_per_ms`, and a round trip of
// `round_trip` before the first byte; grants whatever the window allows, in runs of 64 KiB.
class SimulatedLink {
 public:
  SimulatedLink(double bytes_per_ms, nanoseconds round_trip)
      : bytes_per_ms_(bytes_per_ms), round_trip_(round_trip) {}

  void RunFor(nanoseconds duration, bool demand = false) {
    const TimePoint end = now_ + duration;
    for (;;) {
      while (uint64_t room = window_.RoomBytes(demand)) {
        const uint64_t bytes = std::min<uint64_t>(room, 64 << 10);
        window_.OnGranted(bytes);
        const auto carried =
            nanoseconds(static_cast<int64_t>(static_cast<double>(bytes) / bytes_per_ms_ * 1e6));
        free_at_ = std::max(free_at_, now_ + round_trip_) + carried;
        on_the_way_.push_back({bytes, now_, free_at_});
      }
      highest_in_flight_ = std::max(highest_in_flight_, window_.in_flight_bytes());
      if (on_the_way_.empty() || on_the_way_.front().arrives > end) break;
      const Run run = on_the_way_.front();
      on_the_way_.pop_front();
      now_ = run.arrives;
      window_.OnArrived(run.bytes, run.granted, now_);
    }
    now_ = end;
  }
  GrantWindow& window() { return window_; }
  uint64_t TakeHighestInFlight() { return std::exchange(highest_in_flight_, 0); }

 private:
  struct Run {
    uint64_t bytes;
    TimePoint granted;
    TimePoint arrives;
  };
  const double bytes_per_ms_;
  const nanoseconds round_trip_;
  GrantWindow window_;
  TimePoint now_{std::chrono::seconds(100)};
  TimePoint free_at_{};
  std::deque<Run> on_the_way_;
  uint64_t highest_in_flight_ = 0;
};

constexpr double kGigabit = 125e3;        // bytes a millisecond
constexpr double kTenGigabit = 1250e3;

TEST(GrantWindowTest, BeginsWithItsInitialSize) {
  GrantWindow window;
  EXPECT_EQ(window.RoomBytes(false), GrantWindow::kInitialBytes);
  window.OnGranted(100 << 10);
  EXPECT_EQ(window.RoomBytes(false), GrantWindow::kInitialBytes - (100 << 10));
  EXPECT_EQ(window.in_flight_bytes(), 100u << 10);
}

TEST(GrantWindowTest, GigabitLinkSettlesAtItsDelayProductAndOneMillisecondOfQueue) {
  SimulatedLink link(kGigabit, microseconds(200));
  link.RunFor(milliseconds(500));
  // 0.2 ms + 1 ms of queue, and the time of the run itself, which its round trip contains.
  EXPECT_GT(link.window().limit_bytes(), 140e3);
  EXPECT_LT(link.window().limit_bytes(), 250e3);
}

TEST(GrantWindowTest, FastLinkIsFilled) {
  SimulatedLink link(kTenGigabit, microseconds(100));
  link.RunFor(milliseconds(500));
  EXPECT_GT(link.window().limit_bytes(), 1.1 * kTenGigabit);
}

TEST(GrantWindowTest, LinkThatIsLimitedByItsRoundTripGrowsUntilTheLinkIsTheLimit) {
  SimulatedLink link(kGigabit, milliseconds(10));
  link.RunFor(milliseconds(2000));
  EXPECT_GT(link.window().limit_bytes(), 10 * kGigabit);
  EXPECT_LT(link.window().limit_bytes(), 14 * kGigabit);
}

TEST(GrantWindowTest, LongRoundTripDoesNotShrinkTheWindow) {
  SimulatedLink link(kTenGigabit, milliseconds(250));
  link.RunFor(std::chrono::seconds(20));
  EXPECT_GE(link.window().limit_bytes(), GrantWindow::kInitialBytes / 2);
}

TEST(GrantWindowTest, NeverAboveItsMaximumNorBelowItsMinimum) {
  SimulatedLink fast(100 * kTenGigabit, milliseconds(1));
  fast.RunFor(milliseconds(200));
  EXPECT_EQ(fast.window().limit_bytes(), GrantWindow::kMaxBytes);
  SimulatedLink slow(100, microseconds(100));  // 100 KB/s
  slow.RunFor(std::chrono::seconds(100));
  EXPECT_GE(slow.window().limit_bytes(), GrantWindow::kMinBytes);
  EXPECT_LE(slow.window().limit_bytes(), GrantWindow::kMinBytes * 13 / 10);
}

TEST(GrantWindowTest, ShrinksToTheDelayProductWhileDemandIsOutstandingAndGrowsBack) {
  SimulatedLink link(kTenGigabit, microseconds(100));
  link.RunFor(milliseconds(200));
  const uint64_t before = link.window().limit_bytes();
  ASSERT_GT(before, 10 * GrantWindow::kMinBytes);
  link.RunFor(milliseconds(10), true);  // what was on its way arrives
  link.TakeHighestInFlight();
  link.RunFor(milliseconds(50), true);
  // 0.1 ms, the time of a run, and a quarter.
  EXPECT_LE(link.TakeHighestInFlight(), 0.2 * kTenGigabit);
  link.RunFor(milliseconds(500));
  EXPECT_GT(link.window().limit_bytes(), before * 9 / 10);
}

TEST(GrantWindowTest, DemandThatNeverEndsLeavesALongLinkFilled) {
  SimulatedLink link(kGigabit, milliseconds(10));
  link.RunFor(milliseconds(2000), true);
  link.TakeHighestInFlight();
  link.RunFor(milliseconds(100), true);
  EXPECT_GT(link.TakeHighestInFlight(), 10 * kGigabit);
}

TEST(GrantWindowTest, DemandLeavesTheMinimumSoThatTheBulkAlwaysEnds) {
  GrantWindow window;
  EXPECT_EQ(window.RoomBytes(true), GrantWindow::kMinBytes);
  window.OnGranted(GrantWindow::kMinBytes);
  EXPECT_EQ(window.RoomBytes(true), 0u);
}

TEST(GrantWindowTest, InAHurryOnlyTheMaximumCounts) {
  GrantWindow window;
  window.Hurry();
  EXPECT_EQ(window.RoomBytes(true), GrantWindow::kMaxBytes);
  window.OnGranted(1000);
  EXPECT_EQ(window.RoomBytes(false), GrantWindow::kMaxBytes - 1000);
}

TEST(GrantWindowTest, ResetForgetsWhatIsOnItsWay) {
  GrantWindow window;
  window.OnGranted(GrantWindow::kInitialBytes);
  EXPECT_EQ(window.RoomBytes(false), 0u);
  window.Reset();
  EXPECT_EQ(window.RoomBytes(false), GrantWindow::kInitialBytes);
}

TEST(GrantWindowTest, AWayThatHasBecomeLongerIsFilledAfterAReset) {
  SimulatedLink near(kTenGigabit, microseconds(100));
  near.RunFor(milliseconds(200));
  SimulatedLink far(kGigabit, milliseconds(10));
  far.window() = near.window();
  far.window().Reset();
  far.RunFor(milliseconds(2000), true);
  EXPECT_GT(far.window().limit_bytes(), 10 * kGigabit);
}

TEST(GrantWindowTest, MoreThanWasGrantedDoesNotWrap) {
  GrantWindow window;
  window.OnGranted(1000);
  window.OnArrived(5000, TimePoint{milliseconds(1)}, TimePoint{milliseconds(2)});
  EXPECT_EQ(window.in_flight_bytes(), 0u);
}

}  // namespace
}  // namespace postcopy
