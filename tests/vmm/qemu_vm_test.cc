// QemuDriver against the real QEMU: device state moves from one process to another by the driver
// alone. TCG without a guest system; times are printed, not judged.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

#include "tests/vmm/real_qemu.h"

namespace postcopy {
namespace {

using std::chrono::microseconds;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::string> kIncoming = {"-S", "-incoming", "defer"};

class QemuVmTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (QemuProgram().empty()) GTEST_SKIP() << "qemu-system-x86_64 is not installed";
  }
  std::unique_ptr<RealQemu> Start(const std::vector<std::string>& more = {}) {
    return std::make_unique<RealQemu>(space_, "q" + std::to_string(++started_),
                                      RealQemu::FileRam(space_), more);
  }
  // Source prepared, held and emptied; the state that left it.
  static DeviceState Empty(QemuDriver& source, VmmDriver::Held& held) {
    EXPECT_TRUE(source.PrepareSource().ok());
    auto stopped = source.StopAndHold();
    EXPECT_TRUE(stopped.ok()) << stopped.status();
    if (stopped.ok()) held = *stopped;
    auto state = source.TakeDeviceState();
    EXPECT_TRUE(state.ok()) << state.status();
    return state.ok() ? *std::move(state) : DeviceState{};
  }
  static void Open(QemuDriver& destination) {
    const absl::Status prepared = destination.PrepareDestination();
    EXPECT_TRUE(prepared.ok()) << prepared;
    const absl::Status opened = destination.OpenIncoming();
    EXPECT_TRUE(opened.ok()) << opened;
  }

  QemuWorkspace space_;
  int started_ = 0;
};

TEST_F(QemuVmTest, DescribesSourceAndWaitingDestination) {
  const auto a = Start();
  const auto b = Start(kIncoming);
  const auto source = a->Driver();
  const auto vm = source->Describe();
  ASSERT_TRUE(vm.ok()) << vm.status();
  EXPECT_EQ(vm->pid, a->pid());
  EXPECT_EQ(vm->vcpus, 1);
  EXPECT_EQ(vm->ram_bytes, uint64_t{256} << 20);
  EXPECT_THAT(vm->machine_type, HasSubstr("pc-i440fx-"));
  ASSERT_EQ(vm->ram.size(), 1u);
  EXPECT_EQ(vm->ram[0].id, "ram");
  EXPECT_EQ(vm->ram[0].type, "memory-backend-file");
  EXPECT_EQ(vm->ram[0].mem_path, space_.ram_file());
  EXPECT_TRUE(vm->ram[0].shared);
  EXPECT_THAT(vm->devices, Contains("balloon:virtio-balloon-pci"));
  EXPECT_THAT(vm->blockers, IsEmpty());
  EXPECT_EQ(vm->state, GuestState::kRunning);

  const auto waiting = b->Driver()->Describe();
  ASSERT_TRUE(waiting.ok()) << waiting.status();
  EXPECT_EQ(waiting->state, GuestState::kWaitsForIncoming);
  EXPECT_THAT(waiting->blockers, IsEmpty());
  EXPECT_EQ(waiting->devices, vm->devices);
}

TEST_F(QemuVmTest, MovesARunningMachineHopByHop) {
  constexpr int kHops = 7;
  std::vector<int64_t> downtimes_us;
  auto here = Start();
  auto source = here->Driver();
  DeviceState state;
  for (int hop = 0; hop < kHops; ++hop) {
    auto there = Start(kIncoming);
    auto destination = there->Driver();
    Open(*destination);
    VmmDriver::Held held;
    state = Empty(*source, held);
    ASSERT_TRUE(held.was_running);
    const absl::Status loaded = destination->LoadDeviceState(state.bytes);
    ASSERT_TRUE(loaded.ok()) << loaded;
    const auto resumed = destination->StartGuest();
    ASSERT_TRUE(resumed.ok()) << resumed.status();
    downtimes_us.push_back(resumed->us - held.stopped.us);
    EXPECT_EQ(source->QueryState().value(), GuestState::kSent);
    EXPECT_EQ(destination->QueryState().value(), GuestState::kRunning);
    EXPECT_TRUE(source->Quit().ok());
    EXPECT_TRUE(here->WaitForExit());
    source = std::move(destination);
    here = std::move(there);
  }
  EXPECT_GT(state.bytes.size(), 10'000u);
  EXPECT_LT(state.ram_bytes_sent, 20u << 20);
  std::sort(downtimes_us.begin(), downtimes_us.end());
  std::printf("STOP to RESUME under TCG, %d hops: median %.2f ms, most %.2f ms; state %zu bytes, "
              "of them RAM %llu\n",
              kHops, static_cast<double>(downtimes_us[kHops / 2]) / 1000,
              static_cast<double>(downtimes_us.back()) / 1000, state.bytes.size(),
              static_cast<unsigned long long>(state.ram_bytes_sent));
}

TEST_F(QemuVmTest, MachineThatItsOperatorPausedStaysPaused) {
  const auto a = Start();
  const auto b = Start(kIncoming);
  ASSERT_TRUE(a->Operator().Command("stop", Json::object(), RealQemu::kLimit).ok());
  const auto source = a->Driver();
  EXPECT_EQ(source->Describe()->state, GuestState::kPaused);
  const auto destination = b->Driver();
  Open(*destination);
  VmmDriver::Held held;
  const DeviceState state = Empty(*source, held);
  EXPECT_FALSE(held.was_running);
  const absl::Status loaded = destination->LoadDeviceState(state.bytes);
  EXPECT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(b->RunState(), "paused");
  EXPECT_EQ(destination->QueryState().value(), GuestState::kPaused);
}

TEST_F(QemuVmTest, RollsBackFromPreSwitchoverAndCanMoveAfterwards) {
  const auto a = Start();
  const auto source = a->Driver();
  const auto before = a->Operator().Command("query-migrate-capabilities", Json::object(),
                                            RealQemu::kLimit);
  ASSERT_TRUE(source->PrepareSource().ok());
  ASSERT_TRUE(source->StopAndHold().ok());
  EXPECT_EQ(source->QueryState().value(), GuestState::kHeldAtSwitchover);
  const absl::Status resumed = source->ResumeSource(true);
  EXPECT_TRUE(resumed.ok()) << resumed;
  EXPECT_EQ(a->RunState(), "running");
  EXPECT_EQ(*before, *a->Operator().Command("query-migrate-capabilities", Json::object(),
                                            RealQemu::kLimit));
  EXPECT_THAT(source->Describe()->blockers, IsEmpty());

  const auto b = Start(kIncoming);
  const auto destination = b->Driver();
  Open(*destination);
  VmmDriver::Held held;
  const DeviceState state = Empty(*source, held);
  EXPECT_TRUE(destination->LoadDeviceState(state.bytes).ok());
}

TEST_F(QemuVmTest, RollsBackFromPostmigrate) {
  const auto a = Start();
  const auto source = a->Driver();
  VmmDriver::Held held;
  Empty(*source, held);
  EXPECT_EQ(a->RunState(), "postmigrate");
  const absl::Status resumed = source->ResumeSource(held.was_running);
  EXPECT_TRUE(resumed.ok()) << resumed;
  EXPECT_EQ(a->RunState(), "running");
  Empty(*source, held);  // and once more
}

TEST_F(QemuVmTest, AnotherDriverRollsBackWhatTheFirstLeft) {
  const auto a = Start();
  auto source = a->Driver();
  ASSERT_TRUE(source->PrepareSource().ok());
  ASSERT_TRUE(source->StopAndHold().ok());
  source.reset();  // as if the daemon had ended: the stream is shut, the machine stays held
  const absl::Status resumed = a->Driver()->ResumeSource(true);
  EXPECT_TRUE(resumed.ok()) << resumed;
  EXPECT_EQ(a->RunState(), "running");
}

TEST_F(QemuVmTest, PausedMachineDoesNotRunAfterRollBack) {
  for (const bool sent : {false, true}) {
    const auto a = Start({"-S"});
    const auto source = a->Driver();
    ASSERT_TRUE(source->PrepareSource().ok());
    const auto held = source->StopAndHold();
    ASSERT_TRUE(held.ok()) << held.status();
    EXPECT_FALSE(held->was_running);
    if (sent) {
      EXPECT_TRUE(source->TakeDeviceState().ok());
    }
    const absl::Status resumed = source->ResumeSource(false);
    EXPECT_TRUE(resumed.ok()) << resumed;
    EXPECT_NE(a->RunState(), "running");
    uint64_t cursor = 0;
    for (auto event = a->Operator().NextEvent(cursor, std::chrono::milliseconds(1)); event.ok();
         event = a->Operator().NextEvent(cursor, std::chrono::milliseconds(1))) {
      EXPECT_NE(event->name, "RESUME");
    }
    const auto vm = source->Describe();
    std::printf("a paused machine after its roll-back%s: %s\n", sent ? " from postmigrate" : "",
                vm->state_text.c_str());
    if (a->RunState() == "postmigrate") {
      EXPECT_THAT(vm->blockers, ::testing::SizeIs(1));
    }
  }
}

TEST_F(QemuVmTest, RamOutsideSharedFilesIsRefusedAndTheMachineRunsOn) {
  RealQemu a(space_, "anonymous", {"-m", "256"}, {});
  const auto source = a.Driver();
  const auto vm = source->Describe();
  ASSERT_EQ(vm->ram.size(), 1u);
  EXPECT_EQ(vm->ram[0].mem_path, "");
  EXPECT_FALSE(vm->ram[0].shared);
  ASSERT_TRUE(source->PrepareSource().ok());
  const auto held = source->StopAndHold().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(held)) << held;
  EXPECT_THAT(std::string(held.message()), HasSubstr("guest RAM into the stream"));
  EXPECT_EQ(a.RunState(), "running");
}

TEST_F(QemuVmTest, DestinationKilledDuringTheLoadIsAborted) {
  const auto a = Start();
  const auto source = a->Driver();
  VmmDriver::Held held;
  const DeviceState state = Empty(*source, held);
  for (const microseconds after : {microseconds(0), microseconds(500), microseconds(1'500)}) {
    const auto b = Start(kIncoming);
    const auto destination = b->Driver();
    Open(*destination);
    std::jthread killer([&] {
      std::this_thread::sleep_for(after);
      ::kill(b->pid(), SIGKILL);
    });
    const absl::Status loaded = destination->LoadDeviceState(state.bytes);
    EXPECT_TRUE(loaded.ok() || absl::IsAborted(loaded) || absl::IsUnavailable(loaded)) << loaded;
  }
  // One that does not read on is in the middle of its load for certain.
  const auto b = Start(kIncoming);
  const auto destination = b->Driver();
  Open(*destination);
  ::kill(b->pid(), SIGSTOP);
  std::jthread killer([&] {
    std::this_thread::sleep_for(microseconds(50'000));
    ::kill(b->pid(), SIGKILL);
  });
  const absl::Status loaded = destination->LoadDeviceState(state.bytes);
  EXPECT_TRUE(absl::IsAborted(loaded)) << loaded;
  EXPECT_TRUE(source->ResumeSource(true).ok());
  EXPECT_EQ(a->RunState(), "running");
}

TEST_F(QemuVmTest, IncompleteStateIsAborted) {
  const auto a = Start();
  const auto source = a->Driver();
  VmmDriver::Held held;
  const DeviceState state = Empty(*source, held);
  for (const size_t length : {size_t{0}, size_t{100}, state.bytes.size() / 2}) {
    const auto b = Start(kIncoming);
    const auto destination = b->Driver();
    Open(*destination);
    const absl::Status loaded =
        destination->LoadDeviceState(std::string_view(state.bytes).substr(0, length));
    EXPECT_TRUE(absl::IsAborted(loaded)) << length << ": " << loaded;
    EXPECT_THAT(std::string(loaded.message()), testing::HasSubstr("its stderr says \"")) << length;
  }
}

TEST_F(QemuVmTest, NeitherAMissingDashSNorContMakesTheDestinationRunByItself) {
  const auto a = Start();
  const auto source = a->Driver();
  VmmDriver::Held held;
  const DeviceState state = Empty(*source, held);
  const auto b = Start({"-incoming", "defer"});
  const auto destination = b->Driver();
  EXPECT_THAT(destination->Describe()->blockers, Contains(HasSubstr("without -S")));
  EXPECT_TRUE(absl::IsFailedPrecondition(destination->StartGuest().status()));
  Open(*destination);
  EXPECT_TRUE(absl::IsFailedPrecondition(destination->StartGuest().status()));
  ASSERT_TRUE(b->Operator().Command("cont", Json::object(), RealQemu::kLimit).ok());
  ASSERT_TRUE(destination->StayStopped().ok());
  const absl::Status loaded = destination->LoadDeviceState(state.bytes);
  EXPECT_TRUE(loaded.ok()) << loaded;
  EXPECT_EQ(b->RunState(), "paused");
}

}  // namespace
}  // namespace postcopy
