#include "perf/replay/touches.h"

#include "gmock/gmock.h"

namespace postcopy::replay {
namespace {

using std::chrono::nanoseconds;

Trace::Fault Fault(int time, uint64_t page, FaultKind kind, std::optional<int> wait) {
  Trace::Fault fault{nanoseconds(time), {{0}, {page}}, kind, std::nullopt};
  if (wait.has_value()) fault.wait = nanoseconds(*wait);
  return fault;
}

std::vector<uint64_t> PagesOf(const Touches& touches) {
  std::vector<uint64_t> pages;
  for (const Touch& touch : touches.touches) pages.push_back(touch.page.page.value);
  return pages;
}

TEST(TouchesTest, FirstFaultOfEachPageThatNeededTheSourceCounts) {
  Trace trace;
  trace.faults = {Fault(1, 7, FaultKind::kZero, 1), Fault(2, 8, FaultKind::kPresent, 1),
                  Fault(3, 5, FaultKind::kJoined, {}), Fault(4, 6, FaultKind::kAsked, 9),
                  Fault(5, 5, FaultKind::kAsked, 9)};
  EXPECT_THAT(PagesOf(TouchesOf(trace)), testing::ElementsAre(5, 6));
}

TEST(TouchesTest, TouchHangsOnTheLatestWaitThatHadEnded) {
  Trace trace;
  trace.faults = {Fault(100, 1, FaultKind::kAsked, 50), Fault(120, 2, FaultKind::kAsked, 100),
                  Fault(160, 3, FaultKind::kAsked, {}), Fault(300, 4, FaultKind::kAsked, 1)};
  const Touches found = TouchesOf(trace);
  ASSERT_EQ(found.touches.size(), 4u);
  EXPECT_EQ(found.touches[0].when.after, std::nullopt);
  EXPECT_EQ(found.touches[0].when.delay, nanoseconds(100));
  EXPECT_EQ(found.touches[1].when.after,
            std::nullopt);  // another vCPU's: the first one still waits
  EXPECT_EQ(found.touches[1].when.delay, nanoseconds(120));
  EXPECT_EQ(found.touches[2].when.after, 0u);
  EXPECT_EQ(found.touches[2].when.delay, nanoseconds(10));
  EXPECT_EQ(found.touches[3].when.after, 1u);
  EXPECT_EQ(found.touches[3].when.delay, nanoseconds(80));
}

TEST(TouchesTest, ResumeHangsOnAWaitToo) {
  Trace trace;
  trace.faults = {Fault(100, 1, FaultKind::kAsked, 50), Fault(170, 2, FaultKind::kAsked, 10)};
  trace.resumed = nanoseconds(160);
  const Touches between = TouchesOf(trace);
  ASSERT_TRUE(between.resume.has_value());
  EXPECT_EQ(between.resume->after, 0u);
  EXPECT_EQ(between.resume->delay, nanoseconds(10));
  trace.resumed = nanoseconds(500);
  const Touches behind = TouchesOf(trace);
  ASSERT_TRUE(behind.resume.has_value());
  EXPECT_EQ(behind.resume->after, 1u);
  EXPECT_EQ(behind.resume->delay, nanoseconds(320));
}

}  // namespace
}  // namespace postcopy::replay
