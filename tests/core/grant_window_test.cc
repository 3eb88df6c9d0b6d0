#include "core/grant_window.h"

#include <deque>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;

constexpr uint64_t kMostAtOnce = 256 << 10;

// Bytes that `window` lets go at once, and how many grants that takes.
struct Granted {
  uint64_t bytes = 0;
  int grants = 0;
};
Granted GrantAll(GrantWindow& window, bool demand = false) {
  Granted granted;
  while (const uint64_t bytes = window.GrantBytes(demand, kMostAtOnce)) {
    window.OnGranted(bytes, TimePoint{});
    granted.bytes += bytes;
    ++granted.grants;
  }
  return granted;
}

GrantWindow WindowOfRunningGuest() {
  GrantWindow window;
  window.GuestRuns();
  return window;
}

// A link that carries granted runs one behind the other at `bytes_per_ms`, and a round trip of
// `round_trip` before the first byte; grants whatever the window allows.
class SimulatedLink {
 public:
  SimulatedLink(double bytes_per_ms, nanoseconds round_trip, bool guest_runs = true)
      : bytes_per_ms_(bytes_per_ms), round_trip_(round_trip) {
    if (guest_runs) window_.GuestRuns();
  }

  void RunFor(nanoseconds duration, bool demand = false) {
    const TimePoint end = now_ + duration;
    for (;;) {
      while (const uint64_t bytes = window_.GrantBytes(demand, kMostAtOnce)) {
        const GrantWindow::Sent sent = window_.OnGranted(bytes, now_);
        const auto carried =
            nanoseconds(static_cast<int64_t>(static_cast<double>(bytes) / bytes_per_ms_ * 1e6));
        free_at_ = std::max(free_at_, now_ + round_trip_) + carried;
        on_the_way_.push_back({bytes, sent, free_at_});
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
    GrantWindow::Sent granted;
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

TEST(GrantWindowTest, BeginsWithItsMinimumInAFewGrants) {
  GrantWindow window = WindowOfRunningGuest();
  const Granted granted = GrantAll(window);
  EXPECT_EQ(granted.bytes, GrantWindow::kMinBytes);
  EXPECT_EQ(granted.grants, int{GrantWindow::kGrantsInWindow});
  EXPECT_EQ(window.in_flight_bytes(), GrantWindow::kMinBytes);
}

TEST(GrantWindowTest, WhatIsFreeIsNotGrantedBeforeItIsWorthIt) {
  GrantWindow window = WindowOfRunningGuest();
  GrantAll(window);
  const uint64_t smallest = GrantWindow::kMinBytes / GrantWindow::kSmallestGrantsInWindow;
  const TimePoint now{milliseconds(1)};
  window.OnArrived(smallest - 1, {}, now);
  EXPECT_EQ(window.GrantBytes(false, kMostAtOnce), 0u);
  window.OnArrived(1, {}, now);
  EXPECT_EQ(window.GrantBytes(false, kMostAtOnce), smallest);
}

TEST(GrantWindowTest, WhatComesPageByPageIsNotGrantedPageByPage) {
  GrantWindow window = WindowOfRunningGuest();
  GrantAll(window);
  uint64_t grants = 0;
  constexpr uint64_t kPages = 1000;
  for (uint64_t i = 1; i <= kPages; ++i) {
    window.OnArrived(kPageBytes, {}, TimePoint{microseconds(i)});
    grants += static_cast<uint64_t>(GrantAll(window).grants);
  }
  EXPECT_LE(grants,
            kPages / (GrantWindow::kMinBytes / kPageBytes / GrantWindow::kSmallestGrantsInWindow));
}

TEST(GrantWindowTest, DoublesEachRoundTripWhileThatBringsMore) {
  SimulatedLink link(kTenGigabit, milliseconds(50));
  link.RunFor(milliseconds(560), true);
  EXPECT_GE(link.window().limit_bytes(), GrantWindow::kMaxBytes / 2);
}

TEST(GrantWindowTest, ASlowLinkIsNotFloodedWhileItsBandwidthIsNotKnown) {
  SimulatedLink link(kGigabit / 10, microseconds(300));
  link.RunFor(std::chrono::seconds(1));
  EXPECT_LE(link.TakeHighestInFlight(), GrantWindow::kMinBytes);
}

TEST(GrantWindowTest, WhatIsLookedAtInBunchesIsNoBandwidth) {
  // 128 KiB each millisecond, all within a tenth of it: eight times as fast as the link.
  constexpr uint64_t kRunBytes = 16 << 10;
  constexpr int kRuns = 8;
  GrantWindow window = WindowOfRunningGuest();
  TimePoint now{milliseconds(1)};
  uint64_t arrived_bytes = 0;
  for (int i = 0; i < 200; ++i) {
    now += milliseconds(1);
    const GrantWindow::Sent sent{now - microseconds(200), arrived_bytes};
    for (int run = 1; run <= kRuns; ++run) {
      window.OnArrived(kRunBytes, sent, now + run * microseconds(12));
      arrived_bytes += kRunBytes;
    }
  }
  // A millisecond and a quarter's worth, and a little of what the edges of a round add.
  EXPECT_LT(window.limit_bytes(), 1.5 * kRuns * kRunBytes);
}

TEST(GrantWindowTest, BeforeTheGuestRunsNothingQueuesButTheSmallestWindow) {
  SimulatedLink near(kGigabit, microseconds(200), /*guest_runs=*/false);
  near.RunFor(milliseconds(500));
  near.TakeHighestInFlight();
  near.RunFor(milliseconds(100));
  EXPECT_LE(near.TakeHighestInFlight(), 0.4 * kGigabit);
  SimulatedLink slow(kGigabit / 10, microseconds(200), /*guest_runs=*/false);
  slow.RunFor(milliseconds(100));
  EXPECT_LE(slow.TakeHighestInFlight(), GrantWindow::kMinBeforeGuestBytes);
  slow.window().GuestRuns();
  slow.RunFor(milliseconds(100));
  EXPECT_EQ(slow.TakeHighestInFlight(), GrantWindow::kMinBytes);
}

TEST(GrantWindowTest, ALongWayIsFilledBeforeTheGuestRuns) {
  SimulatedLink link(kGigabit, milliseconds(10), /*guest_runs=*/false);
  link.RunFor(milliseconds(150));
  EXPECT_GE(link.window().in_flight_bytes(), 9 * kGigabit);
}

TEST(GrantWindowTest, ASinglePagesRoundTripCountsWhereItIsShorter) {
  // Whoever sees only whole grants with a queue before them takes the queue for the way.
  SimulatedLink seen(kTenGigabit, milliseconds(1)), unseen(kTenGigabit, milliseconds(1));
  seen.window().OnRoundTrip(microseconds(500));
  seen.RunFor(milliseconds(500));
  unseen.RunFor(milliseconds(500));
  EXPECT_LT(seen.window().limit_bytes(), unseen.window().limit_bytes());
}

TEST(GrantWindowTest, ALargeWindowDoesNotWaitForMoreThanTheLargestGrant) {
  GrantWindow window;
  window.Hurry();
  EXPECT_EQ(GrantAll(window).bytes, GrantWindow::kMaxBytes);
  window.OnArrived(kMostAtOnce, {}, TimePoint{milliseconds(1)});
  EXPECT_EQ(window.GrantBytes(false, kMostAtOnce), kMostAtOnce);
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
  EXPECT_GE(link.window().limit_bytes(), GrantWindow::kMaxBytes / 2);
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
  GrantWindow window = WindowOfRunningGuest();
  EXPECT_EQ(GrantAll(window, true).bytes, GrantWindow::kMinBytes);
}

TEST(GrantWindowTest, InAHurryOnlyTheMaximumCounts) {
  GrantWindow window;
  window.Hurry();
  EXPECT_EQ(GrantAll(window, true).bytes, GrantWindow::kMaxBytes);
  EXPECT_EQ(window.GrantBytes(false, kMostAtOnce), 0u);
}

TEST(GrantWindowTest, ResetForgetsWhatIsOnItsWay) {
  GrantWindow window = WindowOfRunningGuest();
  GrantAll(window);
  window.Reset();
  EXPECT_EQ(GrantAll(window).bytes, GrantWindow::kMinBytes);
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
  window.OnGranted(1000, {});
  window.OnArrived(5000, {}, TimePoint{milliseconds(2)});
  EXPECT_EQ(window.in_flight_bytes(), 0u);
}

}  // namespace
}  // namespace postcopy
