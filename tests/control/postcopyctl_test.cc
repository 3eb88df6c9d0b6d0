// The real postcopyctl against a daemon's control server within the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "control/postcopy.pb.h"
#include "tests/control/postcopyctl_fixture.h"

namespace postcopy {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(PostcopyctlTest, RelocatePreparesSwitchesAndWaitsForCommit) {
  LetItCommit();
  const Finished run =
      Run({"relocate", "web1", "--to", "10.77.0.12", "--as", "web1-b", "--keep-source"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("web1: running"));
  EXPECT_THAT(run.out, HasSubstr("web1: committed, 100 % of 1 GiB present"));
  EXPECT_THAT(run.out, HasSubstr("downtime 7.5 ms, 1234 faults"));
  EXPECT_THAT(run.out, Not(HasSubstr("\r")));
  EXPECT_EQ(run.err, "");
  EXPECT_EQ(relocations_.prepared().destination, "10.77.0.12:7700");
  EXPECT_EQ(relocations_.prepared().destination_vm, "web1-b");
  EXPECT_TRUE(relocations_.prepared().keep_source);
}

TEST_F(PostcopyctlTest, JsonIsOneObjectWithEveryFigure) {
  LetItCommit();
  const Finished run = Run({"relocate", "web1", "--to", "10.77.0.12", "--json"});
  EXPECT_EQ(run.code, 0) << run.err;
  const json object = json::parse(run.out);
  const auto& fields = *v1::Progress::descriptor();
  for (int i = 0; i < fields.field_count(); ++i) {
    EXPECT_TRUE(object.contains(fields.field(i)->name())) << fields.field(i)->name();
  }
  EXPECT_EQ(object["outcome"], "committed");
  EXPECT_EQ(object["state"], "committed");
  EXPECT_TRUE(object["stopped_at_us"].is_null());
  EXPECT_TRUE(object["fault_p50_us"].is_null());
  EXPECT_TRUE(object["error"].is_null());
  EXPECT_EQ(object["present_bytes"], 1 << 30);
  EXPECT_EQ(object["faults"], 1234);
  EXPECT_EQ(object["fault_p99_us"], 800.5);
  EXPECT_EQ(object["committed_at_us"], 1'700'000'000'123'456);
  EXPECT_GT(object["total_ms"].get<double>(), 0);
  EXPECT_THAT(run.err, HasSubstr("web1: committed"));
}

TEST_F(PostcopyctlTest, PrepareOnlyStopsNothingAndSwitchGoesOn) {
  const Finished prepared = Run({"relocate", "web1", "--to", "b", "--prepare-only", "--json"});
  EXPECT_EQ(prepared.code, 0) << prepared.err;
  EXPECT_EQ(json::parse(prepared.out)["outcome"], "prepared");
  EXPECT_EQ(json::parse(prepared.out)["session"], kTestSession);
  EXPECT_THAT(relocations_.calls(), Not(Contains(StartsWith("switch"))));
  LetItCommit();
  EXPECT_EQ(Run({"switch", "web1"}).code, 0);
  EXPECT_THAT(relocations_.calls(), Contains(std::string("switch ") + kTestSession));
}

TEST_F(PostcopyctlTest, NoWaitEndsAtTheSwitch) {
  const Finished run = Run({"relocate", "web1", "--to", "b", "--no-wait", "--json"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(json::parse(run.out)["outcome"], "switched");
  EXPECT_EQ(json::parse(run.out)["downtime_ms"], 7.5);
}

TEST_F(PostcopyctlTest, DaemonsErrorsBecomeExitCodes) {
  const std::vector<std::pair<absl::StatusCode, int>> codes{
      {absl::StatusCode::kNotFound, 3},
      {absl::StatusCode::kFailedPrecondition, 4},
      {absl::StatusCode::kUnavailable, 5},
      {absl::StatusCode::kCancelled, 7},
  };
  for (const auto& [status, code] : codes) {
    relocations_.Fail("prepare", absl::Status(status, "the reason"));
    const Finished run = Run(kRelocate);
    EXPECT_EQ(run.code, code);
    EXPECT_EQ(run.err, "postcopyctl relocate web1: the reason\n");
    EXPECT_THAT(relocations_.calls(), Not(Contains(StartsWith("switch"))));
  }
}

TEST_F(PostcopyctlTest, RolledBackSwitchIsSix) {
  relocations_.Fail("switch", absl::AbortedError("switch web1: rolled back: load failed"));
  relocations_.AfterFailedSwitch(SessionState::kRolledBack);
  const Finished run = Run({"relocate", "web1", "--to", "b", "--json"});
  EXPECT_EQ(run.code, 6);
  EXPECT_EQ(json::parse(run.out)["outcome"], "rolled-back");
  EXPECT_EQ(json::parse(run.out)["error"], "switch web1: rolled back: load failed");
  EXPECT_EQ(json::parse(run.out)["state"], "rolled-back");
  EXPECT_THAT(run.err, HasSubstr("postcopyctl relocate web1: switch web1: rolled back"));
}

TEST_F(PostcopyctlTest, SwitchWithoutAnOutcomeIsLookedUp) {
  relocations_.Fail("switch", absl::UnavailableError("open incoming to b:7700: socket closed"));
  EXPECT_EQ(Run(kRelocate).code, 5);  // still prepared: nothing has stopped
  relocations_.Fail("switch", absl::InternalError("ask an operator"));
  EXPECT_EQ(Run(kRelocate).code, 8);
}

TEST_F(PostcopyctlTest, VmThatEndsAfterTheSwitchIsEight) {
  Progress failed = ProgressIn(SessionState::kFailed);
  failed.error = "its VMM at the destination has ended";
  relocations_.AfterSwitch({failed});
  const Finished run = Run(kRelocate);
  EXPECT_EQ(run.code, 8);
  EXPECT_THAT(run.err, HasSubstr("its VMM at the destination has ended"));
}

TEST_F(PostcopyctlTest, DaemonThatGoesAwayAfterTheSwitchIsEight) {
  RunningCommand running(Words(kRelocate));
  ASSERT_TRUE(relocations_.AwaitCall(std::string("switch ") + kTestSession));
  server_->Stop();  // lets the Switch answer go out first
  const Finished run = running.Wait();
  EXPECT_EQ(run.code, 8) << run.err;
  EXPECT_THAT(run.err, HasSubstr("postcopyctl relocate web1: switched, but"));
}

TEST_F(PostcopyctlTest, InterruptWhilePreparingCancels) {
  relocations_.HoldUntilCancelled("prepare");
  RunningCommand running(Words(kRelocate));
  ASSERT_TRUE(relocations_.AwaitCall("prepare web1"));
  running.Signal(SIGINT);
  const Finished run = running.Wait();
  EXPECT_EQ(run.code, 7) << run.err;
  EXPECT_THAT(relocations_.calls(), Contains("cancel web1"));
  EXPECT_THAT(relocations_.calls(), Not(Contains(StartsWith("switch"))));
}

TEST_F(PostcopyctlTest, InterruptDuringTheSwitchIsTheDaemonsToDecide) {
  relocations_.HoldUntilCancelled("switch");
  RunningCommand running(Words(kRelocate));
  ASSERT_TRUE(relocations_.AwaitCall(std::string("switch ") + kTestSession));
  running.Signal(SIGINT);
  EXPECT_EQ(running.Wait().code, 7);
}

TEST_F(PostcopyctlTest, InterruptAfterTheSwitchLeavesItRunning) {
  relocations_.Fail("cancel", absl::FailedPreconditionError("it already runs there"));
  RunningCommand running(Words(kRelocate));
  ASSERT_TRUE(relocations_.AwaitCall(std::string("switch ") + kTestSession));
  running.Signal(SIGINT);
  const Finished run = running.Wait();
  EXPECT_EQ(run.code, 8);
  EXPECT_THAT(run.err, HasSubstr("already runs at the destination"));
}

TEST_F(PostcopyctlTest, ListIsATable) {
  VmSummary moving = VmNamed("web1", 4711);
  moving.guest_state = "running";
  moving.ram_bytes = 1 << 30;
  moving.in_session = true;
  moving.progress = ProgressIn(SessionState::kHandedOver);
  VmSummary unhooked = VmNamed("web2", 12);
  unhooked.problem = "not hooked";
  relocations_.SetVms({moving, unhooked});
  EXPECT_EQ(Run({"list"}).out,
            "NAME  PID   GUEST    RAM    SESSION               PROBLEM\n"
            "web1  4711  running  1 GiB  handed over (source)  -\n"
            "web2  12    -        0 MiB  -                     not hooked\n");
  const json object = json::parse(Run({"list", "--json"}).out);
  EXPECT_EQ(object["vms"][0]["name"], "web1");
  EXPECT_EQ(object["vms"][1]["problem"], "not hooked");
}

TEST_F(PostcopyctlTest, ListSaysWhetherTheHostMayBeSwitchedOff) {
  EXPECT_EQ(json::parse(Run({"list", "--json"}).out)["may_switch_off"], true);
  Progress owed = ProgressIn(SessionState::kRunning);
  owed.data_bytes = 1 << 30;
  owed.present_bytes = 1 << 29;
  relocations_.SetOwed({{owed}});
  EXPECT_THAT(Run({"list"}).out, HasSubstr("\nLeave this host on: 10.77.0.12:7700 still needs memory "
                                           "of VM web1, 512 MiB are left (running)\n"));
  const json object = json::parse(Run({"list", "--json"}).out);
  EXPECT_EQ(object["may_switch_off"], false);
  EXPECT_EQ(object["owed"][0]["vm"], "web1");
  EXPECT_EQ(object["owed"][0]["remaining_bytes"], 1 << 29);
}

TEST_F(PostcopyctlTest, OtherCommandsTellWhatTheDaemonSays) {
  EXPECT_THAT(Run({"stats", "web1"}).out, HasSubstr("state            prepared\n"));
  EXPECT_EQ(json::parse(Run({"stats", "web1", "--json"}).out)["session"], kTestSession);
  EXPECT_THAT(Run({"recover", "web1"}).out, HasSubstr("owner: destination\nit runs there"));
  EXPECT_EQ(Run({"release", "web1"}).code, 0);
  const Finished lost = Run({"source-lost", "web1", "--poison"});
  EXPECT_EQ(lost.code, 0) << lost.err;
  EXPECT_EQ(lost.out, "web1: the source was lost\n");
  const json killed = json::parse(Run({"source-lost", "web1", "--kill", "--json"}).out);
  EXPECT_EQ(killed["outcome"], "ok");
  EXPECT_EQ(killed["report"], "the source was lost");
  EXPECT_THAT(relocations_.calls(), Contains("source-lost web1 poison"));
  EXPECT_THAT(relocations_.calls(), Contains("source-lost web1 kill"));
  relocations_.Fail("source-lost", absl::FailedPreconditionError("it is not out of reach"));
  EXPECT_EQ(Run({"source-lost", "web1", "--kill"}).code, 4);
  const Finished back = Run({"destination-lost", "web1", "--resume"});
  EXPECT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.out, "web1: it goes on here\n");
  EXPECT_EQ(Run({"cancel", "web1"}).code, 0);
  relocations_.Fail("cancel", absl::FailedPreconditionError("it already runs at b:7700"));
  const Finished refused = Run({"cancel", "web1"});
  EXPECT_EQ(refused.code, 4);
  EXPECT_EQ(refused.err, "postcopyctl cancel web1: it already runs at b:7700\n");
  relocations_.SetProgress(ProgressIn(SessionState::kCommitted));
  const Finished watched = Run({"watch", "web1", "--json"});
  EXPECT_EQ(watched.code, 0);
  EXPECT_EQ(json::parse(watched.out)["outcome"], "committed");
}

TEST_F(PostcopyctlTest, CheckPrintsAllThatIsInTheWay) {
  Finished run = Run({"check", "web1", "--to", "b", "--as", "web1-b"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "web1: can be relocated to b\n");
  EXPECT_EQ(relocations_.prepared().destination_vm, "web1-b");
  relocations_.SetFindings({{"source", "job mirror0"}, {"destination", "no such VM"}});
  run = Run({"check", "web1", "--to", "b"});
  EXPECT_EQ(run.code, 4);
  EXPECT_EQ(run.out, "source: job mirror0\ndestination: no such VM\n");
  run = Run({"check", "web1", "--to", "b", "--json"});
  EXPECT_EQ(run.code, 4);
  const json object = json::parse(run.out);
  EXPECT_EQ(object["outcome"], "misfit");
  EXPECT_EQ(object["findings"][1], (json{{"side", "destination"}, {"message", "no such VM"}}));
}

TEST_F(PostcopyctlTest, WatchWithJsonIsALineForEachMessage) {
  RunningCommand running(Words({"watch", "web1", "--json"}));
  ASSERT_TRUE(relocations_.AwaitCall("wait web1"));
  relocations_.SetProgress(ProgressIn(SessionState::kRunning));
  ASSERT_TRUE(relocations_.AwaitCall("wait web1", 3));
  relocations_.SetProgress(ProgressIn(SessionState::kCommitted));
  const Finished run = running.Wait();
  EXPECT_EQ(run.code, 0) << run.err;
  std::vector<json> lines;
  std::istringstream text(run.out);
  for (std::string line; std::getline(text, line);) lines.push_back(json::parse(line));
  ASSERT_GE(lines.size(), 3u) << run.out;
  EXPECT_EQ(lines[0]["state"], "prepared");
  for (size_t i = 0; i + 1 < lines.size(); ++i) EXPECT_TRUE(lines[i]["outcome"].is_null());
  EXPECT_EQ(lines.back()["outcome"], "committed");
  EXPECT_EQ(lines.back()["vm"], "web1");
}

TEST_F(PostcopyctlTest, EveryCommandAnswersInJsonWhetherItSucceedsOrFails) {
  const std::vector<std::vector<std::string>> commands{
      {"list"},          {"stats", "web1"}, {"watch", "web1"},   {"cancel", "web1"},
      {"hurry", "web1"}, {"release", "web1"}, {"recover", "web1"}, {"source-lost", "web1", "--kill"},
      {"destination-lost", "web1", "--resume"},
      {"check", "web1", "--to", "b"},       {"switch", "web1", "--no-wait"},
      {"relocate", "web1", "--to", "b", "--no-wait"}};
  VmSummary vm = VmNamed("web1", 4711);
  vm.in_session = true;
  vm.progress = ProgressIn(SessionState::kRolledBack);
  relocations_.SetVms({vm, VmNamed("web2", 4712)});
  for (std::vector<std::string> words : commands) {
    words.push_back("--json");
    relocations_.SetProgress(ProgressIn(SessionState::kRolledBack));  // ends a watch
    const Finished run = Run(words);
    EXPECT_EQ(run.code, words[0] == "watch" ? 6 : 0) << words[0] << ": " << run.out << run.err;
    EXPECT_FALSE(json::parse(run.out)["outcome"].is_null()) << words[0];
  }
  for (const char* call : {"stats", "cancel", "hurry", "release", "recover", "source-lost", "destination-lost", "check",
                           "switch", "prepare"}) {
    relocations_.Fail(call, absl::FailedPreconditionError("it cannot be done now"));
  }
  for (std::vector<std::string> words : commands) {
    words.push_back("--json");
    if (words[0] == "list") words.insert(words.end(), {"--daemon", "127.0.0.1:1"});
    const Finished run = Run(words);
    const json object = json::parse(run.out);
    EXPECT_EQ(run.code, words[0] == "list" ? 5 : 4) << words[0];
    EXPECT_EQ(object["outcome"], words[0] == "list" ? "unreachable" : "misfit") << words[0];
    EXPECT_FALSE(object["error"].is_null()) << words[0];
  }
}

TEST_F(PostcopyctlTest, FailuresAreObjectsOfTheSameForm) {
  relocations_.Fail("stats", absl::NotFoundError("no such VM"));
  for (const char* command : {"stats", "watch"}) {
    const Finished run = Run({command, "web1", "--json"});
    EXPECT_EQ(run.code, 3);
    const json object = json::parse(run.out);
    EXPECT_EQ(object["vm"], "web1");
    EXPECT_EQ(object["outcome"], "no-such-vm");
    EXPECT_EQ(object["error"], "no such VM");
    EXPECT_TRUE(object["state"].is_null());
  }
  const Finished usage = Run({"relocate", "web1", "--json"});
  EXPECT_EQ(usage.code, 2);
  EXPECT_EQ(json::parse(usage.out)["outcome"], "usage");
}

}  // namespace
}  // namespace postcopy
