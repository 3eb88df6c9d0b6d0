#include "cli/progress_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace postcopy {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// 1 GiB of data, of which `present` MB are there after `elapsed_ms`; a tenth came on demand.
v1::Progress Running(double elapsed_ms, uint64_t present_mb) {
  v1::Progress progress;
  progress.set_vm("web1");
  progress.set_session("s");
  progress.set_state(v1::STATE_RUNNING);
  progress.set_elapsed_ms(elapsed_ms);
  progress.set_data_bytes(1000 * 1'000'000ull);
  progress.set_present_bytes(present_mb * 1'000'000);
  progress.set_demand_bytes(present_mb * 100'000);
  progress.set_bulk_bytes(present_mb * 900'000);
  progress.set_faults(3214);
  progress.set_fault_p50_us(210);
  progress.set_fault_p99_us(1234);
  progress.set_downtime_ms(8.13);
  return progress;
}

TEST(ProgressViewTest, RateAndRemainderComeOfTheMessagesThemselves) {
  ProgressView view;
  view.Add(Running(1000, 100));
  EXPECT_FALSE(view.rate_bytes_per_s().has_value());
  EXPECT_FALSE(view.remaining_s().has_value());
  view.Add(Running(1500, 300));
  EXPECT_DOUBLE_EQ(*view.rate_bytes_per_s(), 400e6);
  EXPECT_DOUBLE_EQ(*view.remaining_s(), 1.75);
}

TEST(ProgressViewTest, FiguresBeyondAllMeasureAreStillShown) {
  v1::Progress progress = Running(1000, 1);
  progress.set_data_bytes(1);
  progress.set_present_bytes(UINT64_MAX);
  ProgressView view;
  view.Add(progress);
  EXPECT_EQ(view.percent(), 100);
  progress.set_data_bytes(UINT64_MAX);
  progress.set_present_bytes(1);
  view.Add(progress);
  progress.set_elapsed_ms(1e300);
  progress.set_present_bytes(2);
  view.Add(progress);
  EXPECT_THAT(view.Line(), HasSubstr(" 16666666 min 40 s left"));
  progress.set_elapsed_ms(NAN);
  progress.set_present_bytes(3);
  view.Add(progress);
  EXPECT_THAT(view.Line(), HasSubstr(" 16666666 min 40 s left"));
  EXPECT_LT(view.Bar(80).size(), 80u);
}

TEST(ProgressViewTest, RateFollowsTheLastTwoSeconds) {
  ProgressView view;
  for (int i = 0; i <= 10; ++i) view.Add(Running(i * 500, static_cast<uint64_t>(i) * 100));
  for (int i = 1; i <= 6; ++i) view.Add(Running(5000 + i * 500, 1000));
  EXPECT_DOUBLE_EQ(*view.rate_bytes_per_s(), 0);
  EXPECT_FALSE(view.remaining_s().has_value());
}

TEST(ProgressViewTest, RepeatedMessageGivesNoRate) {
  ProgressView view;
  view.Add(Running(1000, 100));
  view.Add(Running(1000, 100));
  EXPECT_FALSE(view.rate_bytes_per_s().has_value());
}

TEST(ProgressViewTest, AnotherSessionStartsAgain) {
  ProgressView view;
  view.Add(Running(1000, 100));
  v1::Progress other = Running(1500, 200);
  other.set_session("t");
  view.Add(other);
  EXPECT_FALSE(view.rate_bytes_per_s().has_value());
}

TEST(ProgressViewTest, HundredPercentMeansAll) {
  ProgressView view;
  EXPECT_EQ(view.percent(), 0);
  v1::Progress progress = Running(0, 999);
  progress.set_present_bytes(progress.data_bytes() - 1);
  view.Add(progress);
  EXPECT_EQ(view.percent(), 99);
  progress.set_present_bytes(progress.data_bytes() + 4096);
  view.Add(progress);
  EXPECT_EQ(view.percent(), 100);
}

TEST(ProgressViewTest, BarFitsItsWidth) {
  ProgressView view;
  view.Add(Running(1000, 100));
  view.Add(Running(1500, 300));
  EXPECT_EQ(view.Bar(120),
            "web1 running [============                            ]  30 %   400.0 MB/s    3214 faults"
            "   p99 1.2 ms     ETA 0:02");
  for (int width = 0; width < 160; ++width) {
    EXPECT_LE(view.Bar(width).size(), static_cast<size_t>(std::max(0, width - 1))) << width;
  }
  EXPECT_THAT(view.Bar(80), HasSubstr("[==="));
  EXPECT_THAT(view.Bar(80), Not(HasSubstr("p99")));
  EXPECT_THAT(view.Bar(70), Not(HasSubstr("[")));
  EXPECT_THAT(view.Bar(70), HasSubstr("ETA 0:02"));
}

TEST(ProgressViewTest, ThePartsOfTheBarKeepTheirPlaces) {
  ProgressView view;
  v1::Progress progress = Running(1000, 1);
  progress.clear_fault_p99_us();
  progress.set_faults(7);
  view.Add(progress);
  const std::string first = view.Bar(120);
  progress = Running(1500, 999);
  progress.set_faults(123456);
  progress.set_fault_p99_us(98765);
  view.Add(progress);
  const std::string later = view.Bar(120);
  EXPECT_EQ(first.size(), later.size());
  for (const char* part : {"]", " %", " faults"}) EXPECT_EQ(first.find(part), later.find(part)) << part;
}

TEST(ProgressViewTest, TimesThatAreLongAreStillShort) {
  ProgressView view;
  view.Add(Running(0, 1));
  v1::Progress progress = Running(3'600'000, 100);
  view.Add(progress);
  EXPECT_THAT(view.Bar(120), EndsWith("  ETA 9:05:28"));
}

TEST(ProgressViewTest, WhatAPreparedSessionWaitsForIsSaid) {
  ProgressView view;
  v1::Progress progress;
  progress.set_vm("web1");
  progress.set_state(v1::STATE_PREPARED);
  view.Add(progress);
  EXPECT_EQ(view.Line(), "web1: prepared, the VM runs at its source until `switch` or `cancel`");
}

TEST(ProgressViewTest, WhatIsNotKnownIsNotZero) {
  ProgressView view;
  v1::Progress progress;
  progress.set_vm("web1");
  progress.set_state(v1::STATE_COMMITTED);
  view.Add(progress);
  EXPECT_EQ(view.Summary(3421), "web1: relocated in 3.42 s: downtime not known here");
  const auto rows = FigureRows(progress);
  const auto text = [&](const std::string& name) {
    for (const auto& row : rows) {
      if (row.first == name) return row.second;
    }
    return std::string("no such row");
  };
  for (const char* name : {"data", "present", "faults", "fault p99", "downtime", "since resume",
                           "stopped at", "RAM", "interruptions"}) {
    EXPECT_EQ(text(name), "not known") << name;
  }
}

TEST(ProgressViewTest, FiguresHaveTheirUnits) {
  v1::Progress progress = Running(3000, 1000);
  progress.set_after_switch_ms(1234);
  const auto rows = FigureRows(progress);
  EXPECT_THAT(rows, ::testing::Contains(std::pair<std::string, std::string>("data", "953.7 MiB")));
  EXPECT_THAT(rows, ::testing::Contains(std::pair<std::string, std::string>("fault p99", "1.2 ms")));
  EXPECT_THAT(rows, ::testing::Contains(std::pair<std::string, std::string>("downtime", "8.1 ms")));
  EXPECT_THAT(rows,
              ::testing::Contains(std::pair<std::string, std::string>("since resume", "1.23 s")));
}

TEST(ProgressViewTest, PlainLineTellsTheSame) {
  ProgressView view;
  view.Add(Running(1000, 100));
  view.Add(Running(1500, 300));
  EXPECT_EQ(view.Line(),
            "web1: running, 30 % of 953.7 MiB present, 400.0 MB/s, 3214 faults, p99 1.2 ms, "
            "2 s left");
}

TEST(ProgressViewTest, ASourceThatIsOutOfReachIsSaid) {
  ProgressView view;
  v1::Progress progress = Running(1000, 100);
  progress.set_error("the source cannot be reached, the VM waits: no answer");
  view.Add(progress);
  EXPECT_THAT(view.Line(), EndsWith(": the source cannot be reached, the VM waits: no answer"));
  EXPECT_THAT(view.Bar(100), StartsWith("web1 waits for its source "));
}

TEST(ProgressViewTest, StateWithoutFiguresIsShort) {
  ProgressView view;
  v1::Progress progress;
  progress.set_vm("web1");
  progress.set_state(v1::STATE_ROLLED_BACK);
  progress.set_error("load: the state is for another machine type");
  view.Add(progress);
  EXPECT_EQ(view.Line(), "web1: rolled back: load: the state is for another machine type");
  EXPECT_EQ(view.Summary(12), "web1: rolled back: load: the state is for another machine type");
}

TEST(ProgressViewTest, SummaryOfACommit) {
  ProgressView view;
  v1::Progress progress = Running(3000, 1000);
  progress.set_state(v1::STATE_COMMITTED);
  view.Add(progress);
  EXPECT_EQ(view.Summary(3421),
            "web1: relocated in 3.42 s: downtime 8.1 ms, 3214 faults (p50 210 us, p99 1.2 ms), "
            "1000.0 MB moved, 100.0 MB of it on demand");
}

TEST(ProgressViewTest, UnitsFollowTheSize) {
  EXPECT_EQ(DurationText(850), "850 us");
  EXPECT_EQ(DurationText(12'345), "12.3 ms");
  EXPECT_EQ(DurationText(3'421'000), "3.42 s");
  EXPECT_EQ(MemoryText(512 << 20), "512 MiB");
  EXPECT_EQ(MemoryText(uint64_t{3} << 29), "1.5 GiB");
  EXPECT_EQ(StateWords(v1::STATE_HANDED_OVER), "handed over");
  EXPECT_EQ(StateWords(static_cast<v1::State>(99)), "unknown to this version");
}

}  // namespace
}  // namespace postcopy
