#include "engine/precacher.h"

#include "gmock/gmock.h"
#include "tests/transport/loopback_transport.h"

namespace postcopy {
namespace {

constexpr uint64_t kPages = 4096;

class PrecacherTest : public testing::Test {
 protected:
  uint64_t GrantedPages() {
    uint64_t pages = 0;
    for (const auto& asked : transport_.asked()) {
      if (asked.kind == LoopbackTransport::Asked::Kind::kGrant) pages += asked.range.count_pages;
    }
    return pages;
  }
  const MemoryLayout layout_{{{"ram", kPages * kPageBytes}}};
  LoopbackTransport transport_{layout_};
  PageMap map_{layout_};
  Fetcher fetcher_{transport_};
  Precacher precacher_{map_, fetcher_, transport_};
};

TEST_F(PrecacherTest, BeginsWithOneWindowSpreadOverTheLanes) {
  precacher_.Start();
  EXPECT_EQ(GrantedPages(), GrantWindow::kInitialBytes / kPageBytes);
  size_t on_lane[2] = {0, 0};
  for (const auto& asked : transport_.asked()) {
    EXPECT_LE(asked.range.count_pages, Precacher::kGrantPages);
    ++on_lane[asked.lane];
  }
  EXPECT_EQ(on_lane[0], on_lane[1]);
}

TEST_F(PrecacherTest, EachArrivalGrantsAsMuchAsHasCome) {
  precacher_.Start();
  const auto first = transport_.asked().front();
  const size_t before = transport_.asked().size();
  precacher_.OnArrived(first.lane, {first.range.first, 16});
  const auto asked = transport_.asked();
  ASSERT_EQ(asked.size(), before + 1);
  EXPECT_EQ(asked.back().lane, first.lane);
  EXPECT_EQ(asked.back().range.count_pages, 16u);
}

TEST_F(PrecacherTest, WhileDemandIsOutstandingOnlyTheMinimumIsOnItsWay) {
  fetcher_.Ask({{0}, {4000}}, TimePoint{});
  precacher_.Start();
  EXPECT_EQ(GrantedPages(), GrantWindow::kMinBytes / kPageBytes);
  fetcher_.OnDemandServed({{0}, {4000}});
  const auto grant = transport_.asked().back();
  precacher_.OnArrived(grant.lane, grant.range);
  EXPECT_GT(GrantedPages(), GrantWindow::kInitialBytes / kPageBytes);
}

TEST_F(PrecacherTest, DemandStopsFurtherGrantsUntilOnlyTheMinimumIsOnItsWay) {
  precacher_.Start();
  fetcher_.Ask({{0}, {4000}}, TimePoint{});
  uint64_t on_its_way = GrantedPages();
  const uint64_t granted = on_its_way;
  for (const auto& grant : transport_.asked()) {
    if (grant.kind != LoopbackTransport::Asked::Kind::kGrant) continue;
    if (on_its_way - grant.range.count_pages < GrantWindow::kMinBytes / kPageBytes) break;
    precacher_.OnArrived(grant.lane, grant.range);
    on_its_way -= grant.range.count_pages;
    EXPECT_EQ(GrantedPages(), granted);
  }
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
  size_t handled = 0;
  for (auto asked = transport_.asked(); handled < asked.size(); asked = transport_.asked()) {
    const auto grant = asked[handled++];
    for (uint64_t i = 0; i < grant.range.count_pages; ++i) ++times[grant.range.first.value + i];
    precacher_.OnArrived(grant.lane, grant.range);
  }
  EXPECT_THAT(times, testing::Each(1));
}

TEST_F(PrecacherTest, ArrivalOfMoreThanWasGrantedBreaksNothing) {
  precacher_.Start();
  precacher_.OnArrived(0, {{0}, kPages});
  precacher_.OnArrived(1, {{0}, kPages});
  EXPECT_GT(GrantedPages(), GrantWindow::kInitialBytes / kPageBytes);
}

TEST_F(PrecacherTest, LanesThatAreDownEndTheGranting) {
  transport_.Stop();
  precacher_.Start();
  EXPECT_EQ(GrantedPages(), 0u);
}

}  // namespace
}  // namespace postcopy
