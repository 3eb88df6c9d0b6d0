// The destination's steps of QemuDriver against a scripted QEMU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/vmm/fake_qemu.h"
#include "vmm/qemu_driver.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

// Reads the stream that was opened to its end, as an incoming QEMU does, then says `events` and is
// in state `run`.
class Loader {
 public:
  Loader(FakeQemu& qemu, std::string run, std::string events)
      : thread_([&qemu, run = std::move(run), events = std::move(events), this] {
          UniqueFd in;
          while (!in.valid()) {
            in = qemu.server().TakePassedFd();
            std::this_thread::yield();
          }
          std::array<char, 4096> buffer;
          for (;;) {
            const StreamResult got = ReceiveBytes(in.get(), buffer, std::chrono::seconds(10));
            if (got.outcome != StreamOutcome::kDone) break;
            loaded_.append(buffer.data(), got.bytes);
          }
          qemu.Set(run, "completed");
          qemu.server().Say(events);
        }) {}
  std::string Finish() {
    thread_.join();
    return loaded_;
  }

 private:
  std::string loaded_;
  std::jthread thread_;
};

TEST(QemuDestinationTest, LoadsAllThenStarts) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  EXPECT_TRUE(qemu.capabilities().at("late-block-activate"));
  ASSERT_TRUE(driver->OpenIncoming().ok());
  Loader loader(qemu, "paused", MigrationEventLine("active") + MigrationEventLine("completed"));
  const std::string state(700'000, 's');
  const auto loaded = driver->LoadDeviceState(state);
  EXPECT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(loader.Finish(), state);
  EXPECT_EQ(qemu.Count("cont"), 0);
  const auto started = driver->StartGuest();
  ASSERT_TRUE(started.ok()) << started.status();
  EXPECT_EQ(started->us, 7'000'005);
  EXPECT_EQ(qemu.run(), "running");
}

TEST(QemuDestinationTest, PrepareMakesAMissingDashSHarmless) {
  FakeQemu qemu("inmigrate");
  ASSERT_TRUE(qemu.Driver()->PrepareDestination().ok());
  EXPECT_EQ(qemu.Count("stop"), 1);
}

TEST(QemuDestinationTest, OnlyAWaitingVmmIsPrepared) {
  for (const char* run : {"running", "paused", "postmigrate"}) {
    FakeQemu qemu(run);
    const auto prepared = qemu.Driver()->PrepareDestination();
    EXPECT_TRUE(absl::IsFailedPrecondition(prepared));
    EXPECT_THAT(std::string(prepared.message()), HasSubstr("-S -incoming defer"));
    EXPECT_EQ(qemu.Count("stop"), 0);
  }
}

TEST(QemuDestinationTest, SettingsOfAWaitingVmmCanBeRestored) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  const auto capabilities = qemu.capabilities();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  ASSERT_TRUE(driver->RestoreSettings().ok());
  EXPECT_EQ(qemu.capabilities(), capabilities);
}

TEST(QemuDestinationTest, LoadThatFailsIsAborted) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  Loader loader(qemu, "inmigrate", MigrationEventLine("failed"));
  EXPECT_TRUE(absl::IsAborted(driver->LoadDeviceState("state")));
}

TEST(QemuDestinationTest, VmmThatExitsDuringTheLoadIsAborted) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  std::jthread exits([&] {
    UniqueFd in = qemu.server().TakePassedFd();
    std::array<char, 16> buffer;
    ReceiveBytes(in.get(), buffer, std::chrono::seconds(10));
    in.Reset();
    qemu.server().HangUp();
  });
  EXPECT_TRUE(absl::IsAborted(driver->LoadDeviceState(std::string(8 << 20, 's'))));
}

TEST(QemuDestinationTest, VmmThatIsGoneBeforeTheLoadIsAborted) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  qemu.server().HangUp();
  EXPECT_TRUE(absl::IsAborted(driver->StayStopped()));
  EXPECT_TRUE(absl::IsAborted(driver->LoadDeviceState("state")));
}

TEST(QemuDestinationTest, AStartOfAWaitingVmmIsTakenBack) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  ASSERT_TRUE(driver->StayStopped().ok());
  EXPECT_EQ(qemu.Count("stop"), 1);
}

TEST(QemuDestinationTest, LoadThatNeverEndsIsATimeout) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver(milliseconds(50));
  ASSERT_TRUE(driver->OpenIncoming().ok());
  const auto loaded = driver->LoadDeviceState("state");
  EXPECT_EQ(loaded.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(loaded.message(), "load device state of /run/x.sock: not completed within 50 ms");
}

TEST(QemuDestinationTest, MachineThatRunsByItselfAfterTheLoadIsReported) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  Loader loader(qemu, "running", QmpEventLine("RESUME") + MigrationEventLine("completed"));
  const auto loaded = driver->LoadDeviceState("state");
  EXPECT_TRUE(absl::IsAborted(loaded));
  EXPECT_THAT(std::string(loaded.message()), HasSubstr("should be paused after it, and runs"));
}

TEST(QemuDestinationTest, AMachineThatSomebodyHasStartedAfterItsLoadRuns) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  Loader loader(qemu, "paused", MigrationEventLine("completed"));
  ASSERT_TRUE(driver->LoadDeviceState("state").ok());
  loader.Finish();
  qemu.Set("running", "completed");
  qemu.server().Say(QmpEventLine("RESUME"));
  qemu.Override("cont", [](const Json& request) -> QmpAnswer { return {{QmpReturn(request)}}; });
  EXPECT_TRUE(driver->StartGuest().ok());
}

TEST(QemuDestinationTest, StartNeverSendsContToAnIncomingMachine) {
  for (const char* run : {"inmigrate", "finish-migrate", "postmigrate", "internal-error"}) {
    FakeQemu qemu(run);
    const auto started = qemu.Driver()->StartGuest().status();
    EXPECT_TRUE(absl::IsFailedPrecondition(started)) << run;
    EXPECT_EQ(qemu.Count("cont"), 0);
  }
}

TEST(QemuDestinationTest, StartOfARunningMachineIsDone) {
  FakeQemu qemu("running");
  const auto started = qemu.Driver()->StartGuest();
  ASSERT_TRUE(started.ok());
  EXPECT_EQ(started->us, 0);
  EXPECT_EQ(qemu.Count("cont"), 0);
}

TEST(QemuDestinationTest, StartThatQemuRefusesIsReportedInItsWords) {
  FakeQemu qemu("paused");
  qemu.Override("cont", [](const Json& request) -> QmpAnswer {
    return {{QmpRefusal(request, "Failed to get \"write\" lock")}};
  });
  EXPECT_EQ(qemu.Driver()->StartGuest().status().message(),
            "qmp cont at /run/x.sock: Failed to get \"write\" lock");
}

TEST(QemuDestinationTest, EveryErrorThatContIsAnsweredWithIsARefusal) {
  for (const char* kind : {"GenericError", "CommandNotFound", "DeviceNotFound", "DeviceNotActive"}) {
    FakeQemu qemu("paused");
    qemu.Override("cont", [kind](const Json& request) -> QmpAnswer {
      return {{QmpRefusal(request, "no", kind)}};
    });
    EXPECT_TRUE(absl::IsFailedPrecondition(qemu.Driver()->StartGuest().status())) << kind;
  }
}

TEST(QemuDestinationTest, AContWithoutAnAnswerIsNoRefusal) {
  FakeQemu qemu("paused");
  qemu.Override("cont", [](const Json&) -> QmpAnswer { return {{}, /*hang_up=*/true}; });
  EXPECT_TRUE(absl::IsUnavailable(qemu.Driver()->StartGuest().status()));
}

TEST(QemuDestinationTest, WhatTheLoadNeededIsOffAfterwards) {
  FakeQemu qemu("inmigrate");
  const auto before = qemu.capabilities();
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  ASSERT_NE(qemu.capabilities(), before);
  const auto ended = driver->EndLoadSettings(std::chrono::seconds(10));
  ASSERT_TRUE(ended.ok()) << ended;
  EXPECT_EQ(qemu.capabilities(), before);
}

TEST(QemuDestinationTest, WhatAnEarlierDaemonHasLeftOnIsSwitchedOff) {
  FakeQemu qemu("inmigrate");
  ASSERT_TRUE(qemu.Driver()->PrepareDestination().ok());
  FakeQemu later("running");
  later.SetCapability("x-ignore-shared", true);
  later.SetCapability("late-block-activate", true);
  ASSERT_TRUE(later.Driver()->EndLoadSettings(std::chrono::seconds(10)).ok());
  EXPECT_FALSE(later.capabilities().at("x-ignore-shared"));
  EXPECT_FALSE(later.capabilities().at("late-block-activate"));
  EXPECT_TRUE(later.capabilities().at("multifd"));
}

TEST(QemuDestinationTest, WhatIsNotSeenOffIsReported) {
  FakeQemu qemu("running");
  qemu.SetCapability("x-ignore-shared", true);
  qemu.Override("migrate-set-capabilities",
                [](const Json& request) -> QmpAnswer { return {{QmpReturn(request)}}; });
  const auto ended = qemu.Driver()->EndLoadSettings(std::chrono::seconds(10));
  EXPECT_THAT(std::string(ended.message()), HasSubstr("x-ignore-shared"));
}

TEST(QemuDestinationTest, SettingsAreEndedOnlyWithinTheLimit) {
  FakeQemu qemu("running");
  qemu.Override("query-migrate-capabilities", [](const Json&) -> QmpAnswer { return {{}}; });
  EXPECT_TRUE(absl::IsDeadlineExceeded(qemu.Driver()->EndLoadSettings(milliseconds(20))));
}

TEST(QemuDestinationTest, DisksOfAGuestThatStaysPausedAreActivatedByTheLoad) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  ASSERT_TRUE(driver->OpenIncoming().ok());
  ASSERT_TRUE(driver->ActivateDisksAtLoad().ok());
  EXPECT_FALSE(qemu.capabilities().at("late-block-activate"));
  EXPECT_TRUE(qemu.capabilities().at("x-ignore-shared"));
}

TEST(QemuDestinationTest, AVmmThatDiedPausedHasNotRun) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  qemu.server().Say(MigrationEventLine("completed"));
  qemu.server().HangUp();
  EXPECT_FALSE(driver->MayHaveRun());
}

TEST(QemuDestinationTest, AVmmThatWasStartedBeforeItDiedMayHaveRun) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  qemu.server().Say(QmpEventLine("RESUME") + QmpEventLine("STOP"));
  qemu.server().HangUp();
  EXPECT_TRUE(driver->MayHaveRun());
}

TEST(QemuDestinationTest, WhoDidNotWatchFromTheLoadOnMayHaveMissedARun) {
  FakeQemu qemu("paused");
  const auto driver = qemu.Driver();
  qemu.server().HangUp();
  EXPECT_TRUE(driver->MayHaveRun());
}

TEST(QemuDestinationTest, AnEventThatIsNotKeptMayHaveBeenARun) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->OpenIncoming().ok());
  std::string events = QmpEventLine("RESUME");
  for (size_t i = 0; i < QmpClient::kMaxQueuedEvents; ++i) events += QmpEventLine("RTC_CHANGE");
  qemu.server().Say(events);
  qemu.server().HangUp();
  EXPECT_TRUE(driver->MayHaveRun());
}

TEST(QemuDestinationTest, AMachineThatIsSeenPausedIsWatchedFromThere) {
  FakeQemu qemu("paused");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->ExpectPaused().ok());
  qemu.server().HangUp();
  EXPECT_FALSE(driver->MayHaveRun());
  FakeQemu running("running");
  EXPECT_TRUE(absl::IsFailedPrecondition(running.Driver()->ExpectPaused()));
}

TEST(QemuDestinationTest, AVmmThatEndsInOrderSaysWhy) {
  const std::pair<const char*, const char*> reasons[] = {
      {"guest-shutdown", "the guest powered off"},
      {"guest-reset", "the guest rebooted and its VMM was started with -no-reboot"},
      {"host-qmp-system-reset", "the machine was reset and its VMM was started with -no-reboot"},
      {"guest-panic", "the guest panicked and its VMM shut down"},
      {"host-qmp-quit", "its VMM was told to quit"},
      {"host-signal", "its VMM was told to end by a signal"},
      {"host-ui", "its VMM's window was closed"},
      {"snapshot-load", "its VMM shut down (snapshot-load)"},
  };
  for (const auto& [reason, words] : reasons) {
    FakeQemu qemu("running");
    const auto driver = qemu.Driver();
    qemu.server().Say(QmpEventLine("SHUTDOWN", {{"guest", true}, {"reason", reason}}));
    qemu.server().HangUp();
    const auto exit = driver->OrderlyExit();
    ASSERT_TRUE(exit.has_value()) << reason;
    EXPECT_EQ(*exit, words);
  }
}

TEST(QemuDestinationTest, AVmmThatCrashesSaysNothing) {
  FakeQemu qemu("running");
  const auto driver = qemu.Driver();
  qemu.server().Say(QmpEventLine("RESUME"));
  qemu.server().HangUp();
  EXPECT_FALSE(driver->OrderlyExit().has_value());
}

TEST(QemuDestinationTest, AGuestThatWasStartedAgainAfterItsShutdownHasNotExited) {
  FakeQemu qemu("running");
  const auto driver = qemu.Driver();
  qemu.server().Say(QmpEventLine("SHUTDOWN", {{"reason", "guest-shutdown"}}) +
                    QmpEventLine("RESET") + QmpEventLine("RESUME"));
  qemu.server().HangUp();
  EXPECT_FALSE(driver->OrderlyExit().has_value());
}

TEST(QemuDestinationTest, StateIsNotLoadedBeforeTheVmmWasOpened) {
  FakeQemu qemu("inmigrate");
  EXPECT_TRUE(absl::IsFailedPrecondition(qemu.Driver()->LoadDeviceState("state")));
}

}  // namespace
}  // namespace postcopy
