#include "core/fault_trace.h"

#include <thread>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using std::chrono::microseconds;

TimePoint At(int us) { return TimePoint{} + microseconds(us); }

FaultRecord Fault(int us, uint64_t page) {
  return {At(us), {{0}, {page}}, FaultKind::kAsked, microseconds(3)};
}

std::vector<uint64_t> PagesOf(const FaultTrace& trace) {
  std::vector<uint64_t> pages;
  for (const FaultRecord& fault : trace.Faults()) pages.push_back(fault.page.page.value);
  return pages;
}

TEST(FaultTraceTest, FaultsComeInTheOrderOfTheirEvents) {
  FaultTrace trace(8);
  trace.Add(Fault(30, 1));
  trace.Add(Fault(10, 2));
  trace.Add(Fault(30, 3));
  EXPECT_THAT(PagesOf(trace), testing::ElementsAre(2, 1, 3));
  EXPECT_EQ(trace.left_out(), 0u);
}

TEST(FaultTraceTest, WhatHasNoRoomIsCounted) {
  FaultTrace trace(2);
  for (int i = 0; i < 5; ++i) trace.Add(Fault(i, static_cast<uint64_t>(i)));
  EXPECT_THAT(PagesOf(trace), testing::ElementsAre(0, 1));
  EXPECT_EQ(trace.left_out(), 3u);
}

TEST(FaultTraceTest, TwoThreadsLoseNothing) {
  constexpr int kEach = 1000;
  FaultTrace trace(2 * kEach);
  const auto add = [&] {
    for (int i = 0; i < kEach; ++i) trace.Add(Fault(i, 1));
  };
  std::thread other(add);
  add();
  other.join();
  EXPECT_EQ(trace.Faults().size(), 2u * kEach);
  EXPECT_EQ(trace.left_out(), 0u);
}

}  // namespace
}  // namespace postcopy
