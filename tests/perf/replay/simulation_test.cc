// Replays of traces small enough to be worked out by hand. The link carries a byte a nanosecond, so
// that a page with its frame's head takes 4096 + 24 ns, and one way over the empty link takes 500
// ns more.
#include "perf/replay/simulation.h"

#include "gmock/gmock.h"

namespace postcopy::replay {
namespace {

using std::chrono::nanoseconds;

constexpr Parameters kParameters{1e9, nanoseconds(1000), nanoseconds(100)};
constexpr nanoseconds kDemand{500 + 24 + 4096 + 500 + 100};  // nothing before it on the link
constexpr nanoseconds kBulkBegins{1000};  // a round trip after RESUME, where that is at 0
constexpr uint64_t kPage = kPageBytes;

// One block; its first `data_pages` have data.
Trace OneBlock(uint64_t pages, uint64_t data_pages, int64_t resume_ns) {
  Trace trace;
  trace.vm = "vm";
  trace.session = "s";
  trace.blocks = {{"ram", pages, kPageBytes}};
  trace.data = {{{0}, {{0}, data_pages}}};
  trace.resumed = nanoseconds(resume_ns);
  return trace;
}

Trace::Fault Asked(int64_t time, uint64_t page, int64_t wait = 0) {
  return {nanoseconds(time), {{0}, {page}}, FaultKind::kAsked, nanoseconds(wait)};
}

Outcome Play(const Trace& trace, const std::string& policy) {
  for (const PolicyKind& kind : AllPolicies()) {
    if (kind.name != policy) continue;
    const auto outcome = Simulate(trace, kind, kParameters);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.value_or(Outcome{});
  }
  ADD_FAILURE() << "no policy " << policy;
  return {};
}

TEST(SimulationTest, TouchBeforeTheBulkWaitsForOnePage) {
  Trace trace = OneBlock(4, 4, 1'000'000);
  trace.faults = {Asked(0, 2)};
  const Outcome outcome = Play(trace, "address");
  EXPECT_EQ(outcome.touches, 1u);
  EXPECT_EQ(outcome.faults_left, 1u);
  EXPECT_EQ(outcome.wait, kDemand);
  EXPECT_EQ(outcome.last_touch, kDemand);
  EXPECT_EQ(outcome.needed_bytes, 0u);
  EXPECT_EQ(outcome.wasted_bytes, 0u);
}

TEST(SimulationTest, ShorterWaitBringsTheNextTouchForward) {
  Trace trace = OneBlock(4, 4, 1'000'000);
  trace.faults = {Asked(0, 2, 10'000), Asked(11'000, 3)};
  EXPECT_EQ(Play(trace, "address").last_touch, kDemand + nanoseconds(1000) + kDemand);
}

TEST(SimulationTest, PageThatWasPushedInTimeIsNoFault) {
  Trace trace = OneBlock(4, 4, 0);
  trace.faults = {Asked(1'000'000, 3)};
  const Outcome outcome = Play(trace, "address");
  EXPECT_EQ(outcome.faults_left, 0u);
  EXPECT_EQ(outcome.wait, nanoseconds(0));
  EXPECT_EQ(outcome.needed_bytes, kPage);
  EXPECT_EQ(outcome.last_page, kBulkBegins + nanoseconds(500 + 24 + 4 * 4096 + 500 + 100));
}

TEST(SimulationTest, InstallsOfTheBulkFollowOneAnother) {
  const Trace trace = OneBlock(4, 4, 0);
  const Parameters slow{1e9, nanoseconds(1000), nanoseconds(10'000)};
  const auto outcome = Simulate(trace, AllPolicies().front(), slow);
  ASSERT_TRUE(outcome.ok());
  EXPECT_EQ(outcome->last_page, kBulkBegins + nanoseconds(500 + 24 + 4096 + 500 + 4 * 10'000));
}

TEST(SimulationTest, PageOnItsWayIsAskedForAndSentTwice) {
  Trace trace = OneBlock(4, 4, 0);
  trace.faults = {Asked(2000, 3)};
  const Outcome outcome = Play(trace, "address");
  EXPECT_EQ(outcome.faults_left, 1u);
  // The pushed copy is there first: the other one waits behind it on the link.
  EXPECT_EQ(outcome.wait, kBulkBegins + nanoseconds(500 + 24 + 4 * 4096 + 500 + 100 - 2000));
  EXPECT_EQ(outcome.sent_twice_bytes, kPage);
  EXPECT_EQ(outcome.wasted_bytes, kPage);
}

TEST(SimulationTest, NeighboursOfAFaultComeFirstAndAreWasteIfNobodyTouchesThem) {
  Trace trace = OneBlock(1000, 1000, 10);
  trace.faults = {Asked(0, 500)};
  EXPECT_EQ(Play(trace, "address").wasted_bytes, 0u);
  EXPECT_EQ(Play(trace, "around-faults").wasted_bytes,
            (GrantScheduler::kPagesBehindFault + GrantScheduler::kPagesBeforeFault) * kPage);

  trace.faults.push_back(Asked(100'000, 505));
  const Outcome address = Play(trace, "address");
  EXPECT_EQ(address.faults_left, 2u);
  EXPECT_EQ(address.needed_bytes, 0u);
  const Outcome around = Play(trace, "around-faults");
  EXPECT_EQ(around.faults_left, 1u);
  EXPECT_EQ(around.needed_bytes, kPage);
  EXPECT_EQ(around.wasted_bytes,
            (GrantScheduler::kPagesBehindFault + GrantScheduler::kPagesBeforeFault - 1) * kPage);
}

TEST(SimulationTest, PageWithoutDataIsAFaultOnlyUntilThatIsKnown) {
  Trace trace = OneBlock(8, 1, 100);
  trace.faults = {Asked(0, 5), Asked(1'000'000, 6)};
  const Outcome outcome = Play(trace, "around-faults");
  EXPECT_EQ(outcome.touches, 2u);
  EXPECT_EQ(outcome.faults_left, 1u);
  EXPECT_EQ(outcome.wait, nanoseconds(500 + 24 + 500 + 100));
}

TEST(SimulationTest, EveryPageComesWhateverTheGuestDoes) {
  Trace trace = OneBlock(5000, 4000, 10);
  for (int i = 0; i < 500; ++i) {
    trace.faults.push_back(Asked(i * 777, static_cast<uint64_t>(i * 37) % 5000, 500));
  }
  for (const PolicyKind& kind : AllPolicies()) {
    const auto outcome = Simulate(trace, kind, kParameters);
    ASSERT_TRUE(outcome.ok());
    EXPECT_GT(outcome->last_page, nanoseconds(4000 * 4096)) << kind.name;
    EXPECT_EQ(outcome->touches, 500u) << kind.name;
  }
}

TEST(SimulationTest, TraceThatSaysTooLittleIsRefused) {
  const PolicyKind& policy = AllPolicies().front();
  Trace trace = OneBlock(4, 4, 0);
  trace.resumed.reset();
  EXPECT_FALSE(Simulate(trace, policy, kParameters).ok());
  trace = OneBlock(4, 4, 0);
  trace.data.clear();
  EXPECT_FALSE(Simulate(trace, policy, kParameters).ok());
  trace = OneBlock(512, 4, 0);
  trace.blocks[0].page_bytes = kMaxHugePageBytes;
  EXPECT_FALSE(Simulate(trace, policy, kParameters).ok());
  trace = OneBlock(kMostPages + 1, 4, 0);
  EXPECT_FALSE(Simulate(trace, policy, kParameters).ok());
}

}  // namespace
}  // namespace postcopy::replay
