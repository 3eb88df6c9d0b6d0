// The source's steps of QemuDriver against a scripted QEMU: from each state, with each failure.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/vmm/fake_qemu.h"
#include "vmm/qemu_driver.h"
#include "vmm/run_state.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// `migrate` as QEMU answers it: up to pre-switchover, with STOP if the machine ran.
void MigrateReachesSwitchover(FakeQemu& qemu, bool was_running) {
  qemu.Override("migrate", [&qemu, was_running](const Json& request) -> QmpAnswer {
    qemu.Set("finish-migrate", "pre-switchover");
    std::string text = QmpReturn(request) + MigrationEventLine("setup");
    text += MigrationEventLine("active");
    if (was_running) text += QmpEventLine("STOP", Json::object(), 3, 14);
    return {{text + MigrationEventLine("pre-switchover")}};
  });
}

// `migrate-continue`: writes `state` to the descriptor that was passed, closes it, completes.
void ContinueSends(FakeQemu& qemu, const std::string& state) {
  qemu.Override("migrate-continue", [&qemu, state](const Json& request) -> QmpAnswer {
    const UniqueFd out = qemu.server().TakePassedFd();
    SendBytes(out.get(), state, -1, std::chrono::seconds(10));
    qemu.Set("postmigrate", "completed");
    return {{MigrationEventLine("device") + QmpReturn(request) + MigrationEventLine("completed")}};
  });
}

TEST(QemuSourceTest, HoldsThenGivesTheWholeState) {
  FakeQemu qemu("running");
  MigrateReachesSwitchover(qemu, true);
  ContinueSends(qemu, std::string(600'000, 'd'));
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareSource().ok());
  const auto held = driver->StopAndHold();
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_TRUE(held->was_running);
  EXPECT_EQ(held->stopped.us, 3'000'014);
  EXPECT_EQ(driver->QueryState().value(), GuestState::kHeldAtSwitchover);
  const auto state = driver->TakeDeviceState();
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->bytes, std::string(600'000, 'd'));
  EXPECT_EQ(state->ram_bytes_sent, 456408u);
  EXPECT_EQ(driver->QueryState().value(), GuestState::kSent);
}

TEST(QemuSourceTest, MachineThatItsOperatorPausedIsHeldAsNotRunning) {
  FakeQemu qemu("paused");
  MigrateReachesSwitchover(qemu, false);
  const auto driver = qemu.Driver();
  const auto held = driver->StopAndHold();
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_FALSE(held->was_running);
  EXPECT_EQ(held->stopped.us, 0);
}

// Every run state of QEMU, at prepare and at the switch.
TEST(QemuSourceTest, OnlyARunningOrPausedMachineIsPreparedOrHeld) {
  for (const RunStateEntry& state : RunStates()) {
    const std::string run(state.name);
    if (state.use == RunStateUse::kMoved) continue;
    FakeQemu qemu(run, run == "postmigrate" ? "completed" : "");
    const auto driver = qemu.Driver();
    for (const absl::Status& refused :
         {driver->PrepareSource(), driver->StopAndHold().status(), driver->CheckMovable().status()}) {
      EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << run;
      EXPECT_THAT(std::string(refused.message()), HasSubstr("it is in state " + run)) << run;
      EXPECT_THAT(std::string(refused.message()), HasSubstr(std::string(state.why))) << run;
    }
    EXPECT_EQ(driver->LeftStopped(), std::nullopt) << run;
    for (const char* changes : {"migrate", "migrate-set-capabilities", "cont", "stop", "qom-set"}) {
      EXPECT_EQ(qemu.Count(changes), 0) << run << ": " << changes;
    }
    EXPECT_EQ(qemu.run(), run);
  }
}

TEST(QemuSourceTest, EveryStateThatIsMovedIsHeldAsItIs) {
  for (const RunStateEntry& state : RunStates()) {
    if (state.use != RunStateUse::kMoved) continue;
    FakeQemu qemu{std::string(state.name)};
    MigrateReachesSwitchover(qemu, state.name == "running");
    const auto driver = qemu.Driver();
    ASSERT_TRUE(driver->PrepareSource().ok()) << state.name;
    const auto held = driver->StopAndHold();
    ASSERT_TRUE(held.ok()) << state.name << ": " << held.status();
    EXPECT_EQ(held->was_running, state.name == "running");
  }
}

// Where the machine has come to a stop of its own, `cont` would be wrong: it is left so.
TEST(QemuSourceTest, AMachineThatHasStoppedByItselfIsNotStartedWhenRolledBack) {
  for (const RunStateEntry& state : RunStates()) {
    if (state.use != RunStateUse::kItsOwn) continue;
    FakeQemu qemu(std::string(state.name), "cancelled");
    const absl::Status resumed = qemu.Driver()->ResumeSource(true);
    EXPECT_TRUE(resumed.ok()) << state.name << ": " << resumed;
    EXPECT_EQ(qemu.Count("cont"), 0) << state.name;
    EXPECT_EQ(qemu.run(), state.name);
  }
}

TEST(QemuSourceTest, WhatIsSetForAMoveIsSetAtTheHoldAndNotAtPrepare) {
  FakeQemu qemu("running");
  qemu.SetDiscardData(true);
  const auto capabilities = qemu.capabilities();
  const Json parameters = qemu.parameters();
  MigrateReachesSwitchover(qemu, true);
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareSource().ok());
  EXPECT_EQ(qemu.capabilities(), capabilities);
  EXPECT_EQ(qemu.parameters(), parameters);
  EXPECT_TRUE(qemu.discard_data());
  ASSERT_TRUE(driver->StopAndHold().ok());
  EXPECT_TRUE(qemu.capabilities().at("x-ignore-shared"));
  EXPECT_FALSE(qemu.discard_data()) << "its RAM file outlives it";
  EXPECT_TRUE(driver->EmptiesMemoryAtEnd());
  ASSERT_TRUE(driver->ResumeSource(true).ok());
  EXPECT_EQ(qemu.capabilities(), capabilities);
  EXPECT_EQ(qemu.parameters(), parameters);
  EXPECT_TRUE(qemu.discard_data());
}

TEST(QemuSourceTest, WhatAnotherObjectHasSwitchedOffIsOnAgain) {
  FakeQemu qemu("postmigrate", "completed");
  qemu.SetDiscardData(true);
  const auto driver = qemu.Driver();
  const auto description = driver->Describe();
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_EQ(description->emptied_at_end, (std::vector<std::string>{"ram"}));
  qemu.SetDiscardData(false);
  EXPECT_FALSE(driver->EmptiesMemoryAtEnd());
  driver->AdoptEmptiedAtEnd({"ram"});
  EXPECT_TRUE(driver->EmptiesMemoryAtEnd());
  ASSERT_TRUE(driver->ResumeSource(true).ok());
  EXPECT_TRUE(qemu.discard_data());
}

TEST(QemuSourceTest, AHoldThatFailsRestoresTheSettings) {
  FakeQemu qemu("running");
  qemu.SetDiscardData(true);
  const auto capabilities = qemu.capabilities();
  qemu.Override("migrate", [](const Json& request) -> QmpAnswer {
    return {{QmpRefusal(request, "no")}};
  });
  const auto driver = qemu.Driver();
  EXPECT_FALSE(driver->StopAndHold().ok());
  EXPECT_EQ(driver->LeftStopped(), std::nullopt);
  EXPECT_EQ(qemu.capabilities(), capabilities);
  EXPECT_TRUE(qemu.discard_data());
}

TEST(QemuSourceTest, AHoldThatCannotBeUndoneSaysWhatItHasLeft) {
  FakeQemu qemu("running");
  qemu.Override("migrate", [&qemu](const Json& request) -> QmpAnswer {
    qemu.Set("finish-migrate", "cancelling");
    return {{QmpReturn(request) + MigrationEventLine("failed")}};
  });
  const auto driver = qemu.Driver(milliseconds(50));
  EXPECT_FALSE(driver->StopAndHold().ok());
  EXPECT_EQ(driver->LeftStopped(), true);
}

TEST(QemuSourceTest, ADriverThatKnowsNotWhatWasSetSwitchesItOff) {
  FakeQemu qemu("postmigrate", "completed");
  for (const char* name : {"x-ignore-shared", "pause-before-switchover", "late-block-activate"}) {
    qemu.SetCapability(name, true);
  }
  ASSERT_TRUE(qemu.Driver()->ResumeSource(true).ok());
  for (const auto& [name, on] : qemu.capabilities()) {
    EXPECT_EQ(on, name == "multifd") << name;  // which was its owner's
  }
}

TEST(QemuSourceTest, RamInTheStreamCancelsAndTheMachineRunsOn) {
  FakeQemu qemu("running");
  MigrateReachesSwitchover(qemu, true);
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareSource().ok());
  qemu.Override("query-migrate", [&qemu](const Json& request) -> QmpAnswer {
    const std::string status = qemu.run() == "running" ? "cancelled" : "pre-switchover";
    return {{QmpReturn(request, {{"status", status}, {"ram", {{"total", 269230080}}}})}};
  });
  const auto held = driver->StopAndHold().status();
  EXPECT_EQ(held.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(held.message()), HasSubstr("269230080 bytes"));
  EXPECT_EQ(qemu.Count("migrate_cancel"), 1);
  EXPECT_EQ(qemu.run(), "running");
}

TEST(QemuSourceTest, MigrationThatFailsBeforeTheSwitchoverLeavesTheMachineRunning) {
  FakeQemu qemu("running");
  qemu.Override("migrate", [&qemu](const Json& request) -> QmpAnswer {
    qemu.Set("running", "failed");
    return {{QmpReturn(request) + MigrationEventLine("setup") + MigrationEventLine("failed")}};
  });
  const auto held = qemu.Driver()->StopAndHold().status();
  EXPECT_EQ(held.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(held.message()), HasSubstr("ended before pre-switchover (failed)"));
  EXPECT_EQ(qemu.run(), "running");
  EXPECT_EQ(qemu.Count("cont"), 0);
}

TEST(QemuSourceTest, RefusedMigrateIsReportedInQemusWords) {
  FakeQemu qemu("running");
  qemu.Override("migrate", [](const Json& request) -> QmpAnswer {
    return {{QmpRefusal(request, "VFIO device doesn't support migration")}};
  });
  EXPECT_EQ(qemu.Driver()->StopAndHold().status().message(),
            "qmp migrate at /run/x.sock: VFIO device doesn't support migration");
  EXPECT_EQ(qemu.run(), "running");
}

TEST(QemuSourceTest, SwitchoverThatNeverComesIsCancelled) {
  FakeQemu qemu("running");
  qemu.Override("migrate", [&qemu](const Json& request) -> QmpAnswer {
    qemu.Set("running", "active");
    return {{QmpReturn(request) + MigrationEventLine("active")}};
  });
  const auto held = qemu.Driver(milliseconds(50))->StopAndHold().status();
  EXPECT_EQ(held.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(held.message(),
            "hold machine of /run/x.sock: pre-switchover not reached within 50 ms");
  EXPECT_EQ(qemu.Count("migrate_cancel"), 1);
}

TEST(QemuSourceTest, SwitchoverThatNeverComesNamesTheDisksWhoseIoItMayWaitFor) {
  FakeQemu qemu("running");
  qemu.Override("query-block", [](const Json& request) -> QmpAnswer {
    const Json medium = {{"drv", "raw"}};
    const Json disks = Json::array({{{"device", "disk0"}, {"inserted", medium}},
                                    {{"device", "cd0"}, {"qdev", "/machine/cd"}},
                                    {{"device", ""}, {"qdev", "vd1"}, {"inserted", medium}}});
    return {{QmpReturn(request, disks)}};
  });
  qemu.Override("migrate", [&qemu](const Json& request) -> QmpAnswer {
    qemu.Set("running", "active");
    return {{QmpReturn(request) + MigrationEventLine("active")}};
  });
  const auto driver = qemu.Driver(milliseconds(50));
  ASSERT_TRUE(driver->PrepareSource().ok());
  const auto held = driver->StopAndHold().status();
  EXPECT_EQ(held.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(held.message(),
            "hold machine of /run/x.sock: pre-switchover not reached within 50 ms; a machine stops "
            "only when the I/O of its disks is complete: disk0, vd1");
}

TEST(QemuSourceTest, StateThatDoesNotEndIsATimeout) {
  FakeQemu qemu("running");
  MigrateReachesSwitchover(qemu, true);
  UniqueFd kept;
  qemu.Override("migrate-continue", [&](const Json& request) -> QmpAnswer {
    kept = qemu.server().TakePassedFd();
    return {{QmpReturn(request) + MigrationEventLine("completed")}};
  });
  const auto driver = qemu.Driver(milliseconds(50));
  ASSERT_TRUE(driver->StopAndHold().ok());
  EXPECT_TRUE(absl::IsDeadlineExceeded(driver->TakeDeviceState().status()));
}

TEST(QemuSourceTest, StateThatFailsMidwayIsReported) {
  FakeQemu qemu("running");
  MigrateReachesSwitchover(qemu, true);
  qemu.Override("migrate-continue", [&](const Json& request) -> QmpAnswer {
    qemu.Set("running", "failed");
    return {{QmpReturn(request) + MigrationEventLine("device") + MigrationEventLine("failed")}};
  });
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->StopAndHold().ok());
  const auto taken = driver->TakeDeviceState().status();
  EXPECT_EQ(taken.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(taken.message()), HasSubstr("the migration ended (failed)"));
}

TEST(QemuSourceTest, StateOfAMachineThatIsNotHeldIsNotTaken) {
  FakeQemu qemu("running");
  EXPECT_TRUE(absl::IsFailedPrecondition(qemu.Driver()->TakeDeviceState().status()));
  EXPECT_EQ(qemu.Count("migrate-continue"), 0);
}

// Every state that a step may have left behind, and what brings the machine back from it.
struct ResumeCase {
  const char* name;
  const char* run;
  const char* migration;
  std::vector<std::string> runs_to_come;
  std::vector<std::string> migrations_to_come;
  std::pair<std::string, std::string> after_cancel;
  bool was_running;
  int cancels, conts, stops;
  const char* run_after;
};

class ResumeSource : public ::testing::TestWithParam<ResumeCase> {};

TEST_P(ResumeSource, EndsWithTheMachineAsItWas) {
  const ResumeCase& test = GetParam();
  FakeQemu qemu(test.run, test.migration);
  qemu.RunStatesToCome(test.runs_to_come);
  qemu.MigrationStatesToCome(test.migrations_to_come);
  qemu.CancelLeads(test.after_cancel.first, test.after_cancel.second);
  const absl::Status resumed = qemu.Driver()->ResumeSource(test.was_running);
  EXPECT_TRUE(resumed.ok()) << resumed;
  EXPECT_EQ(qemu.Count("migrate_cancel"), test.cancels);
  EXPECT_EQ(qemu.Count("cont"), test.conts);
  EXPECT_EQ(qemu.Count("stop"), test.stops);
  EXPECT_EQ(qemu.run(), test.run_after);
}

INSTANTIATE_TEST_SUITE_P(
    States, ResumeSource,
    ::testing::Values(
        ResumeCase{"RunsAlready", "running", "", {}, {}, {}, true, 0, 0, 0, "running"},
        ResumeCase{"RunsAfterCancel", "running", "cancelled", {}, {}, {}, true, 0, 0, 0, "running"},
        ResumeCase{"Active", "running", "active", {}, {}, {"running", "cancelled"}, true, 1, 0, 0,
                   "running"},
        ResumeCase{"PreSwitchover", "finish-migrate", "pre-switchover", {}, {},
                   {"running", "cancelled"}, true, 1, 0, 0, "running"},
        ResumeCase{"Device", "finish-migrate", "device", {}, {}, {"running", "cancelled"}, true, 1,
                   0, 0, "running"},
        ResumeCase{"DeviceThatCompletesAllTheSame", "finish-migrate", "device", {}, {},
                   {"postmigrate", "completed"}, true, 1, 1, 0, "running"},
        ResumeCase{"Cancelling", "finish-migrate", "cancelling", {"running"},
                   {"cancelling", "cancelling", "cancelled"}, {}, true, 0, 0, 0, "running"},
        ResumeCase{"Completed", "postmigrate", "completed", {}, {}, {}, true, 0, 1, 0, "running"},
        ResumeCase{"FailedAndResumesByItself", "finish-migrate", "failed",
                   {"finish-migrate", "finish-migrate", "running"}, {}, {}, true, 0, 0, 0,
                   "running"},
        ResumeCase{"FailedAndStaysStopped", "postmigrate", "failed", {}, {}, {}, true, 0, 1, 0,
                   "running"},
        ResumeCase{"PausedAtPreSwitchover", "finish-migrate", "pre-switchover", {}, {},
                   {"postmigrate", "cancelled"}, false, 1, 0, 0, "postmigrate"},
        ResumeCase{"PausedCompleted", "postmigrate", "completed", {}, {}, {}, false, 0, 0, 0,
                   "postmigrate"},
        ResumeCase{"PausedButRuns", "running", "failed", {}, {}, {}, false, 0, 0, 1, "paused"}),
    [](const auto& instance) { return std::string(instance.param.name); });

TEST(QemuSourceTest, ContWaitsUntilQemuHasFinished) {
  FakeQemu qemu("finish-migrate", "cancelled");
  qemu.RunStatesToCome({"finish-migrate", "finish-migrate", "postmigrate"});
  EXPECT_TRUE(qemu.Driver()->ResumeSource(true).ok());
  EXPECT_EQ(qemu.Count("cont"), 1);
}

TEST(QemuSourceTest, ResumeRestoresSettings) {
  FakeQemu qemu("running");
  MigrateReachesSwitchover(qemu, true);
  const auto driver = qemu.Driver();
  const auto capabilities = qemu.capabilities();
  ASSERT_TRUE(driver->PrepareSource().ok());
  ASSERT_TRUE(driver->StopAndHold().ok());
  ASSERT_TRUE(driver->ResumeSource(true).ok());
  EXPECT_EQ(qemu.capabilities(), capabilities);
}

TEST(QemuSourceTest, ResumeNeverSendsContToAnIncomingMachine) {
  for (const char* migration : {"", "setup", "active"}) {
    FakeQemu qemu("inmigrate", migration);
    EXPECT_TRUE(absl::IsFailedPrecondition(qemu.Driver()->ResumeSource(true))) << migration;
    EXPECT_EQ(qemu.Count("cont"), 0);
    EXPECT_EQ(qemu.Count("migrate_cancel"), 0);
  }
}

TEST(QemuSourceTest, ResumeThatGetsNowhereIsATimeout) {
  FakeQemu stuck("finish-migrate", "cancelling");
  EXPECT_TRUE(absl::IsDeadlineExceeded(stuck.Driver(milliseconds(50))->ResumeSource(true)));
}

TEST(QemuSourceTest, ResumeOfAVmmThatIsGone) {
  FakeQemu qemu("running", "active");
  qemu.Override("migrate_cancel", [](const Json&) -> QmpAnswer { return {{}, true}; });
  EXPECT_TRUE(absl::IsUnavailable(qemu.Driver()->ResumeSource(true)));
}

}  // namespace
}  // namespace postcopy
