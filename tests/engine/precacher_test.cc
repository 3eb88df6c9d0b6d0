#include "engine/precacher.h"

#include "gmock/gmock.h"
#include "tests/transport/loopback_transport.h"

namespace postcopy {
namespace {

constexpr uint64_t kPages = 1 << 18;
constexpr uint64_t kSmallestWindowPages = GrantWindow::kMinBytes / kPageBytes;

class PrecacherTest : public testing::Test {
 protected:
  PrecacherTest() { precacher_.GuestRuns(); }
  // Of the grants that nobody has taken from the transport.
  uint64_t GrantedPages() {
    uint64_t pages = 0;
    for (const auto& asked : transport_.asked()) {
      if (asked.kind == LoopbackTransport::Asked::Kind::kGrant) pages += asked.range.count_pages;
    }
    return pages;
  }
  // Lets everything come at once, so that a larger window is found than the smallest; what is on
  // its way then.
  std::vector<LoopbackTransport::Asked> GrowWindow() {
    precacher_.OnRoundTrip(std::chrono::nanoseconds(10));
    precacher_.Start();
    while (GrantedPages() > 0 && GrantedPages() <= 4 * kSmallestWindowPages) {
      for (const auto& grant : transport_.TakeAsked())
        precacher_.OnArrived(grant.lane, grant.range);
    }
    return transport_.asked();
  }
  const MemoryLayout layout_{{{"ram", kPages * kPageBytes}}};
  LoopbackTransport transport_{layout_};
  PageMap map_{layout_};
  Fetcher fetcher_{transport_};
  Precacher precacher_{map_, fetcher_, transport_};
};

TEST_F(PrecacherTest, BeginsWithOneWindowSpreadOverTheLanes) {
  precacher_.Start();
  EXPECT_EQ(GrantedPages(), kSmallestWindowPages);
  size_t on_lane[2] = {0, 0};
  for (const auto& asked : transport_.asked()) {
    EXPECT_LE(asked.range.count_pages, Precacher::kGrantPages);
    ++on_lane[asked.lane];
  }
  EXPECT_EQ(on_lane[0], on_lane[1]);
}

TEST_F(PrecacherTest, WhatArrivesPageByPageIsNotGrantedPageByPage) {
  precacher_.Start();
  const auto first = transport_.TakeAsked();
  ASSERT_EQ(first.size(), GrantWindow::kGrantsInWindow);
  for (const auto& grant : first) {
    for (uint64_t page = 0; page < grant.range.count_pages; ++page) {
      precacher_.OnArrived(grant.lane, {grant.range.first + page, 1});
    }
  }
  EXPECT_GE(GrantedPages(), kSmallestWindowPages);
  EXPECT_LE(transport_.asked().size(), GrantedPages() / 2);
}

TEST_F(PrecacherTest, AWindowGrowsAndDemandStopsFurtherGrantsUntilLittleIsOnItsWay) {
  const auto on_its_way = GrowWindow();
  uint64_t pages = GrantedPages();
  ASSERT_GT(pages, 4 * kSmallestWindowPages);
  fetcher_.Ask({{0}, {kPages - 1}}, TimePoint{});
  transport_.TakeAsked();
  for (const auto& grant : on_its_way) {
    pages -= grant.range.count_pages;
    if (pages < kSmallestWindowPages) break;
    precacher_.OnArrived(grant.lane, grant.range);
    EXPECT_EQ(GrantedPages(), 0u);
  }
  fetcher_.OnDemandServed({{0}, {kPages - 1}});
  precacher_.OnFault({{0}, {kPages / 2}});
  ASSERT_GT(GrantedPages(), 0u) << "at once, as there is room";
  EXPECT_EQ(transport_.asked().front().range.first.value, kPages / 2);
}

TEST_F(PrecacherTest, NothingIsGrantedBeforeTheStart) {
  precacher_.OnFault({{0}, {2000}});
  EXPECT_EQ(GrantedPages(), 0u);
}

TEST_F(PrecacherTest, FaultsSurroundingsOvertakeTheAddressOrder) {
  precacher_.Start();
  precacher_.OnFault({{0}, {2000}});
  const auto first = transport_.asked().front();
  precacher_.OnArrived(first.lane, first.range);
  const auto asked = transport_.asked();
  bool found = false;
  for (const auto& grant : asked) found |= grant.range.first.value == 2000;
  EXPECT_TRUE(found);
}

TEST_F(PrecacherTest, EveryPageIsGrantedExactlyOnceUntilNoneIsLeft) {
  precacher_.Start();
  std::vector<int> times(kPages, 0);
  for (auto asked = transport_.TakeAsked(); !asked.empty(); asked = transport_.TakeAsked()) {
    for (const auto& grant : asked) {
      for (uint64_t i = 0; i < grant.range.count_pages; ++i) ++times[grant.range.first.value + i];
      precacher_.OnArrived(grant.lane, grant.range);
    }
  }
  EXPECT_THAT(times, testing::Each(1));
}

TEST_F(PrecacherTest, ArrivalOfMoreThanWasGrantedBreaksNothing) {
  precacher_.Start();
  precacher_.OnArrived(0, {{0}, kPages});
  precacher_.OnArrived(1, {{0}, kPages});
  EXPECT_GE(GrantedPages(), 2 * kSmallestWindowPages);
}

TEST_F(PrecacherTest, LanesThatAreDownEndTheGranting) {
  transport_.Stop();
  precacher_.Start();
  EXPECT_EQ(GrantedPages(), 0u);
}

}  // namespace
}  // namespace postcopy
