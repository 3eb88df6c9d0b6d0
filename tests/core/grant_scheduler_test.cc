#include "core/grant_scheduler.h"

#include <random>
#include <set>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

MemoryLayout TwoRegions() { return {{{"a", 1000 * kPageBytes}, {"b", 300 * kPageBytes}}}; }

PageAddress Page(uint64_t page, uint32_t region = 0) { return {{region}, {page}}; }

void ExpectGrant(GrantScheduler& scheduler, uint32_t region, uint64_t first, uint64_t pages,
                 uint64_t max_pages = 64) {
  const auto grant = scheduler.Next(max_pages);
  ASSERT_TRUE(grant.has_value());
  EXPECT_EQ(grant->region.value, region);
  EXPECT_EQ(grant->range, (PageRange{{first}, pages}));
}

TEST(GrantSchedulerTest, WithoutFaultsGoesInAddressOrderThroughAllRegions) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  PageAddress expected = Page(0);
  while (const auto grant = scheduler.Next(64)) {
    if (expected == Page(1000)) expected = Page(0, 1);
    ASSERT_EQ((PageAddress{grant->region, grant->range.first}), expected);
    ASSERT_LE(grant->range.count_pages, 64u);
    expected.page = grant->range.end();
  }
  EXPECT_EQ(expected, Page(300, 1));
}

TEST(GrantSchedulerTest, SurroundingsOfAFaultComeFirstBehindBeforeBefore) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  map.MarkDemanded(Page(500));
  scheduler.OnFault(Page(500));
  ExpectGrant(scheduler, 0, 501, GrantScheduler::kPagesBehindFault);
  ExpectGrant(scheduler, 0, 500 - GrantScheduler::kPagesBeforeFault,
              GrantScheduler::kPagesBeforeFault);
  ExpectGrant(scheduler, 0, 0, 64);
}

TEST(GrantSchedulerTest, NewerFaultComesBeforeOlderOne) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  scheduler.OnFault(Page(100));
  scheduler.OnFault(Page(700));
  ExpectGrant(scheduler, 0, 700, 25);
  ExpectGrant(scheduler, 0, 692, 8);
  ExpectGrant(scheduler, 0, 100, 25);
  ExpectGrant(scheduler, 0, 92, 8);
}

TEST(GrantSchedulerTest, FaultInTheMiddleOfAnothersSurroundingsOvertakesTheRestOfThem) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  scheduler.OnFault(Page(100));
  ExpectGrant(scheduler, 0, 100, 4, 4);
  scheduler.OnFault(Page(700));
  ExpectGrant(scheduler, 0, 700, 4, 4);
}

TEST(GrantSchedulerTest, SurroundingsAreCutAtTheEndsOfTheRegion) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  scheduler.OnFault(Page(299, 1));
  scheduler.OnFault(Page(2));
  ExpectGrant(scheduler, 0, 2, 25);
  ExpectGrant(scheduler, 0, 0, 2);
  ExpectGrant(scheduler, 1, 299, 1);
  ExpectGrant(scheduler, 1, 291, 8);
}

TEST(GrantSchedulerTest, MoreFaultsThanAreRememberedForgetsTheOldest) {
  PageMap map({{{"a", 100000 * kPageBytes}}});
  GrantScheduler scheduler(map);
  constexpr uint64_t kFaults = GrantScheduler::kRememberedFaults + 5;
  for (uint64_t i = 0; i < kFaults; ++i) scheduler.OnFault(Page(1000 * (i + 1)));
  for (uint64_t i = kFaults; i > 5; --i) {
    ExpectGrant(scheduler, 0, 1000 * i, 25);
    ExpectGrant(scheduler, 0, 1000 * i - 8, 8);
  }
  ExpectGrant(scheduler, 0, 0, 64);
}

TEST(GrantSchedulerTest, WhatIsPresentOrDemandedIsSkipped) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  map.Claim(Page(0));
  map.Finish(Page(0), true);
  map.MarkDemanded(Page(10));
  map.MarkEmpty({0}, {{20}, 900});
  ExpectGrant(scheduler, 0, 1, 9);
  ExpectGrant(scheduler, 0, 11, 9);
  ExpectGrant(scheduler, 0, 920, 64);
}

TEST(GrantSchedulerTest, NothingIsGrantedTwiceWhateverTheFaults) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  std::mt19937_64 random(3);
  std::set<PageAddress> granted;
  for (;;) {
    if (random() % 3 == 0) {
      const uint32_t region = random() % 2;
      scheduler.OnFault(Page(random() % map.region_pages({region}), region));
    }
    const auto grant = scheduler.Next(1 + random() % 64);
    if (!grant.has_value()) break;
    for (PageIndex page = grant->range.first; page < grant->range.end(); page = page + 1) {
      ASSERT_TRUE(granted.insert({grant->region, page}).second);
    }
  }
  EXPECT_EQ(granted.size(), 1300u);
}

TEST(GrantSchedulerTest, AfterRewindAndForgottenGrantsOnlyWhatIsMissingComesAgain) {
  PageMap map(TwoRegions());
  GrantScheduler scheduler(map);
  while (scheduler.Next(64).has_value()) {
  }
  for (uint64_t page = 0; page < 1000; ++page) {
    if (page == 40) continue;
    map.Claim(Page(page));
    map.Finish(Page(page), true);
  }
  map.ForgetGrants();
  scheduler.Rewind();
  ExpectGrant(scheduler, 0, 40, 1);
  ExpectGrant(scheduler, 1, 0, 64);
}

}  // namespace
}  // namespace postcopy
