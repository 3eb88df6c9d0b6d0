#include "engine/fetcher.h"

#include "gmock/gmock.h"
#include "tests/transport/loopback_transport.h"

namespace postcopy {
namespace {

constexpr TimePoint kLongAgo{};

PageAddress Page(uint64_t page) { return {{0}, {page}}; }

class FetcherTest : public testing::Test {
 protected:
  uint32_t IdOf(uint64_t page) {
    for (const auto& asked : transport_.asked()) {
      if (asked.range.first.value == page) return asked.id;
    }
    ADD_FAILURE() << "page " << page << " was not asked for";
    return 0;
  }
  LoopbackTransport transport_{MemoryLayout{{{"ram", 64 * kPageBytes}}}};
  Fetcher fetcher_{transport_};
};

TEST_F(FetcherTest, EachPageIsRequestedUnderItsOwnId) {
  fetcher_.Ask(Page(3), kLongAgo);
  fetcher_.Ask(Page(9), kLongAgo);
  EXPECT_NE(IdOf(3), IdOf(9));
  EXPECT_TRUE(fetcher_.outstanding());
  EXPECT_EQ(fetcher_.Figures().faults, 2u);
  EXPECT_EQ(fetcher_.Figures().served, 0u);
}

TEST_F(FetcherTest, PageThatWasWokenIsServedOnce) {
  fetcher_.Ask(Page(3), std::chrono::steady_clock::now());
  fetcher_.OnDemandServed(Page(3));
  fetcher_.Answered(IdOf(3), Page(3));
  EXPECT_FALSE(fetcher_.outstanding());
  EXPECT_EQ(fetcher_.Figures().served, 1u);
}

TEST_F(FetcherTest, AnswerForAPageThatNobodyWasWokenForEndsTheWait) {
  fetcher_.Ask(Page(3), std::chrono::steady_clock::now());
  fetcher_.Answered(IdOf(3), Page(3));
  EXPECT_FALSE(fetcher_.outstanding());
  EXPECT_EQ(fetcher_.Figures().served, 1u);
}

TEST_F(FetcherTest, LateAnswerLeavesTheRequestThatHasItsIdByNow) {
  fetcher_.Ask(Page(3), kLongAgo);
  const uint32_t id = IdOf(3);
  fetcher_.OnDemandServed(Page(3));  // the bulk brought it
  fetcher_.Ask(Page(9), kLongAgo);
  ASSERT_EQ(IdOf(9), id);
  fetcher_.Answered(id, Page(3));
  EXPECT_TRUE(fetcher_.outstanding());
  EXPECT_EQ(fetcher_.Figures().served, 1u);
}

TEST_F(FetcherTest, RequestOnALaneThatIsDownStaysOutstanding) {
  transport_.Stop();
  fetcher_.Ask(Page(3), kLongAgo);
  EXPECT_TRUE(fetcher_.outstanding());
}

TEST(FetcherTraceTest, FaultIsTracedWhenItIsAnsweredOrNeverWillBe) {
  LoopbackTransport transport{MemoryLayout{{{"ram", 64 * kPageBytes}}}};
  FaultTrace trace(8);
  Fetcher fetcher(transport, &trace);
  const TimePoint before = std::chrono::steady_clock::now();
  fetcher.Ask(Page(3), before);
  fetcher.Ask(Page(9), before);
  fetcher.OnDemandServed(Page(9));
  ASSERT_EQ(trace.Faults().size(), 1u);
  fetcher.TraceUnanswered();
  const auto faults = trace.Faults();
  ASSERT_EQ(faults.size(), 2u);
  EXPECT_EQ(faults[0].page, Page(9));
  EXPECT_EQ(faults[0].read_at, before);
  EXPECT_TRUE(faults[0].wait.has_value());
  EXPECT_EQ(faults[1].page, Page(3));
  EXPECT_EQ(faults[1].kind, FaultKind::kAsked);
  EXPECT_FALSE(faults[1].wait.has_value());
}

}  // namespace
}  // namespace postcopy
