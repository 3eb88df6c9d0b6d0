#include "perf/replay/replay_text.h"

#include <nlohmann/json.hpp>

#include "gmock/gmock.h"

namespace postcopy::replay {
namespace {

using std::chrono::microseconds;
using testing::HasSubstr;

Trace SomeTrace() {
  Trace trace;
  trace.vm = "web\xff";
  trace.session = "s";
  trace.blocks = {{"ram", 512, kPageBytes}};
  trace.data = {{{0}, {{0}, 256}}};
  trace.faults = {{microseconds(1), {{0}, {1}}, FaultKind::kAsked, microseconds(9)},
                  {microseconds(2), {{0}, {1}}, FaultKind::kJoined, {}}};
  return trace;
}

Outcome SomeOutcome() {
  Outcome outcome;
  outcome.policy = "address";
  outcome.touches = 3;
  outcome.faults_left = 2;
  outcome.wait = microseconds(1500);
  outcome.needed_bytes = 4096;
  outcome.wasted_bytes = 3 << 20;
  return outcome;
}

TEST(ReplayTextTest, TableHasConditionsAndALineAPolicy) {
  const std::string table = ReplayTable(SomeTrace(), Parameters{}, {SomeOutcome(), SomeOutcome()});
  EXPECT_THAT(table, HasSubstr("1.0 MiB with data; faults: 1 asked, 1 joined, 0 present"));
  EXPECT_THAT(table, HasSubstr("link of 1000 Mbit/s, round trip 100 us, 2.0 us to install a page"));
  EXPECT_THAT(table, HasSubstr("address               3        2        1.50"));
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 6);
}

TEST(ReplayTextTest, JsonHasEveryFigureInItsUnit) {
  const auto json = nlohmann::json::parse(ReplayJson(SomeTrace(), Parameters{}, {SomeOutcome()}));
  EXPECT_EQ(json["data_bytes"], 1 << 20);
  EXPECT_EQ(json["round_trip_us"], 100.0);
  const auto& policy = json["policies"].at(0);
  EXPECT_EQ(policy["policy"], "address");
  EXPECT_EQ(policy["faults_left"], 2);
  EXPECT_EQ(policy["wait_us"], 1500.0);
  EXPECT_EQ(policy["wasted_bytes"], 3 << 20);
}

}  // namespace
}  // namespace postcopy::replay
