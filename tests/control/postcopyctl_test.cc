// The real postcopyctl against a daemon's control server within the test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "control/control_server.h"
#include "control/postcopy.pb.h"
#include "tests/control/fake_relocations.h"
#include "tests/control/run_command.h"

namespace postcopy {
namespace {

using nlohmann::json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

class PostcopyctlTest : public ::testing::Test {
 protected:
  PostcopyctlTest()
      : server_(ControlServer::Start({.addresses = {"127.0.0.1:0"}}, relocations_).value()) {}

  std::vector<std::string> Words(const std::vector<std::string>& arguments) const {
    std::vector<std::string> words{POSTCOPYCTL, "--daemon", server_->addresses()[0]};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return words;
  }
  Finished Run(const std::vector<std::string>& arguments) const {
    return RunningCommand(Words(arguments)).Wait();
  }
  // Running, half there, committed.
  void LetItCommit() {
    Progress half = ProgressIn(SessionState::kRunning);
    half.data_bytes = 1 << 30;
    half.present_bytes = 1 << 29;
    half.bulk_bytes = 1 << 29;
    half.elapsed_ms = 300;
    Progress done = half;
    done.state = SessionState::kCommitted;
    done.present_bytes = done.bulk_bytes = 1 << 30;
    done.faults = 1234;
    done.fault_p99_us = 800.5;
    done.downtime_ms = 7.5;
    done.committed_at_us = 1'700'000'000'123'456;
    relocations_.AfterSwitch({half, done});
  }

  FakeRelocations relocations_;
  std::unique_ptr<ControlServer> server_;
};

const std::vector<std::string> kRelocate{"relocate", "web1", "--to", "10.77.0.12"};

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
  EXPECT_EQ(object["state"], "STATE_COMMITTED");
  EXPECT_EQ(object["ram_bytes"], 0);
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
  const Finished run = Run({"relocate", "web1", "--to", "b", "--json"});
  EXPECT_EQ(run.code, 6);
  EXPECT_EQ(json::parse(run.out)["outcome"], "rolled-back");
  EXPECT_EQ(json::parse(run.out)["error"], "switch web1: rolled back: load failed");
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

TEST_F(PostcopyctlTest, OtherCommandsTellWhatTheDaemonSays) {
  EXPECT_THAT(Run({"stats", "web1"}).out, HasSubstr("state            STATE_PREPARED"));
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

TEST_F(PostcopyctlTest, UnreachableDaemonIsFiveAndFast) {
  const auto before = std::chrono::steady_clock::now();
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"list"}, {"watch", "x"}, kRelocate}) {
    std::vector<std::string> words{POSTCOPYCTL, "--daemon", "127.0.0.1:1"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const Finished run = RunningCommand(words).Wait();
    EXPECT_EQ(run.code, 5);
    EXPECT_THAT(run.err, HasSubstr("daemon 127.0.0.1:1: connection refused"));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
}

TEST_F(PostcopyctlTest, WrongCommandLinesAreTwo) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {},
           {"teleport"},
           {"relocate", "web1"},
           {"relocate", "--to", "b"},
           {"cancel"},
           {"list", "--no-such-option"},
           {"source-lost", "web1"},
           {"source-lost", "web1", "--poison", "--kill"},
           {"source-lost", "--kill"},
           {"relocate", "web1", "--to", "b", "--no-wait", "--prepare-only"}}) {
    const Finished run = Run(arguments);
    EXPECT_EQ(run.code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(run.err, StartsWith("postcopyctl: "));
  }
  EXPECT_THAT(relocations_.calls(), IsEmpty());
}

TEST_F(PostcopyctlTest, HelpHasAnExampleOfEachCommand) {
  for (const std::string command : {"relocate", "switch", "list", "watch", "cancel", "stats",
                                    "source-lost", "recover", "release"}) {
    const Finished run = Run({command, "--help"});
    EXPECT_EQ(run.code, 0);
    EXPECT_THAT(run.out, HasSubstr("Example:\n  postcopyctl " + command));
    EXPECT_THAT(Run({"--help"}).out, HasSubstr("\n  " + command));
  }
  EXPECT_THAT(Run({"--version"}).out, StartsWith("postcopyctl "));
}

}  // namespace
}  // namespace postcopy
