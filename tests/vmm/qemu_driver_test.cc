#include "vmm/qemu_driver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/vmm/fake_qemu.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

TEST(QemuDriverTest, DescribesWithoutOptionalAnswers) {
  FakeQemu qemu("running");
  for (const char* command : {"human-monitor-command", "query-memory-size-summary"}) {
    qemu.Override(command, [](const Json& request) -> QmpAnswer {
      return {{QmpRefusal(request, "unknown", "CommandNotFound")}};
    });
  }
  qemu.Override("qom-get", [](const Json& request) -> QmpAnswer {
    if (StringAt(MemberAt(request, "arguments"), "property") == "type") {
      return {{QmpReturn(request, "pc-q35-7.2-machine")}};
    }
    if (StringAt(MemberAt(request, "arguments"), "property") == "memory-backend") {
      return {{QmpReturn(request, "/objects/ram")}};
    }
    return {{QmpRefusal(request, "Property 'memory-backend-ram.mem-path' not found")}};
  });
  const auto driver = qemu.Driver();
  const auto vm = driver->Describe();
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ(vm->machine_type, "pc-q35-7.2");
  EXPECT_EQ(vm->ram.at(0).mem_path, "");
  EXPECT_EQ(vm->state, GuestState::kRunning);
  EXPECT_GT(vm->pid, 0);
}

TEST(QemuDriverTest, DescribeFailsWhenAVitalAnswerIsRefused) {
  FakeQemu qemu("running");
  qemu.Override("query-memdev", [](const Json& request) -> QmpAnswer {
    return {{QmpRefusal(request, "no")}};
  });
  const auto driver = qemu.Driver();
  EXPECT_EQ(driver->Describe().status().message(), "qmp query-memdev at /run/x.sock: no");
}

TEST(QemuDriverTest, ASilentVmmIsAskedOnceForItsState) {
  FakeQemu qemu("running");
  const auto driver = qemu.Driver();
  const int before = qemu.Count("query-status");
  qemu.Override("query-status", [](const Json&) -> QmpAnswer { return {}; });
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(
        driver->QueryStateText(std::chrono::milliseconds(20)).status()));
  }
  EXPECT_EQ(qemu.Count("query-status"), before + 1);
}

TEST(QemuDriverTest, SettingsAreRestoredOnce) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  const auto capabilities = qemu.capabilities();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  EXPECT_TRUE(qemu.capabilities().at("x-ignore-shared"));
  EXPECT_FALSE(qemu.capabilities().at("multifd"));
  ASSERT_TRUE(driver->RestoreSettings().ok());
  EXPECT_EQ(qemu.capabilities(), capabilities);
  const int sent = qemu.Count("migrate-set-capabilities");
  ASSERT_TRUE(driver->RestoreSettings().ok());
  EXPECT_EQ(qemu.Count("migrate-set-capabilities"), sent);
}

TEST(QemuDriverTest, PreparingTwiceStillRestoresTheFirstSettings) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  const auto capabilities = qemu.capabilities();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  ASSERT_TRUE(driver->PrepareDestination().ok());
  ASSERT_TRUE(driver->RestoreSettings().ok());
  EXPECT_EQ(qemu.capabilities(), capabilities);
}

TEST(QemuDriverTest, DestinationThatBecomesASourceGetsAllItsCapabilities) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  ASSERT_TRUE(driver->PrepareDestination().ok());
  qemu.Set("running", "completed");
  qemu.Override("migrate", [&qemu](const Json& request) -> QmpAnswer {
    qemu.Set("finish-migrate", "pre-switchover");
    return {{QmpReturn(request) + MigrationEventLine("active") +
             MigrationEventLine("pre-switchover")}};
  });
  const auto held = driver->StopAndHold();
  ASSERT_TRUE(held.ok()) << held.status();
  EXPECT_TRUE(qemu.capabilities().at("events"));
  EXPECT_TRUE(qemu.capabilities().at("x-ignore-shared"));
  EXPECT_TRUE(qemu.capabilities().at("pause-before-switchover"));
}

TEST(QemuDriverTest, SettingsThatAreRefusedLeaveNothingChanged) {
  FakeQemu qemu("running");
  const auto driver = qemu.Driver();
  const auto capabilities = qemu.capabilities();
  qemu.Override("migrate-set-parameters", [](const Json& request) -> QmpAnswer {
    return {{QmpRefusal(request, "bad parameter")}};
  });
  const auto held = driver->StopAndHold();
  EXPECT_THAT(std::string(held.status().message()), HasSubstr("bad parameter"));
  EXPECT_EQ(qemu.capabilities(), capabilities);
}

TEST(QemuDriverTest, QuitOfAVmmThatIsGoneAtOnceIsDone) {
  FakeQemu qemu("postmigrate", "completed");
  qemu.Override("quit", [](const Json&) -> QmpAnswer { return {{}, true}; });
  EXPECT_TRUE(qemu.Driver()->Quit().ok());
}

TEST(QemuDriverTest, StateOfEachRunState) {
  FakeQemu qemu("inmigrate");
  const auto driver = qemu.Driver();
  EXPECT_EQ(driver->QueryState().value(), GuestState::kWaitsForIncoming);
  EXPECT_EQ(driver->QueryStateText(std::chrono::seconds(5)).value(), "inmigrate");
  qemu.Set("finish-migrate", "pre-switchover");
  EXPECT_EQ(driver->QueryState().value(), GuestState::kHeldAtSwitchover);
  qemu.Set("postmigrate", "completed");
  EXPECT_EQ(driver->QueryState().value(), GuestState::kSent);
}

}  // namespace
}  // namespace postcopy
