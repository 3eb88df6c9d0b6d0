// The fence through VmRegistry, with the hook played by the test.
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "gmock/gmock.h"
#include "server/vm_registry.h"

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::chrono::seconds kSoon{10};
constexpr uint64_t kVideoRam = 0x1000000;
constexpr uint64_t kRam = 0x8000000;
const SessionId kSession{{std::byte{1}}};
const SessionId kOther{{std::byte{2}}};

class VmFenceTest : public ::testing::Test {
 protected:
  // The VM is this process.
  void Register(AgentClientId client = 1, std::optional<SessionId> fenced = std::nullopt,
                uint16_t version = wire::kAgentProtocolVersion) {
    VmRegistry::Registration registration;
    registration.message.snapshot = 3;
    registration.message.version = version;
    registration.message.vm_name = "vm";
    wire::RegisterBlock video{kVideoRam, 0x1000000, 0, wire::BlockKind::kAnonymous, false, "", ""};
    wire::RegisterBlock ram{kRam, 0x1000000, 0, wire::BlockKind::kSharedFile, false, "ram", "/r"};
    ram.fenced = fenced.has_value();
    registration.message.fenced_session = fenced;
    registration.message.blocks = {video, ram};
    registration.ram_files.emplace_back(memfd_create("ram", MFD_CLOEXEC));
    registration.process = std::move(*Pidfd::Open(getpid()));
    ASSERT_TRUE(registry_.Register(client, std::move(registration)).ok());
  }
  VmRegistry::FenceRequest Begin() {
    auto fence = registry_.BeginFence("vm", kSession, {kRam});
    EXPECT_TRUE(fence.ok()) << fence.status();
    return *std::move(fence);
  }
  void Fence() {
    const auto fence = Begin();
    registry_.TakeCommands();
    ASSERT_TRUE(registry_.OnFenced(1, kSession));
    ASSERT_TRUE(registry_.AwaitFence(fence, kSoon).ok());
  }
  // Unfence() on another thread; returns once its command for the hook is there.
  std::thread UnfenceInBackground(absl::Status& result) {
    std::thread caller([this, &result] { result = registry_.Unfence("vm", kSession); });
    while ((commands_ = registry_.TakeCommands()).empty()) std::this_thread::yield();
    return caller;
  }
  std::optional<SessionId> FencedFor() { return registry_.Find("vm")->fenced_for; }

  VmRegistry registry_;
  std::vector<VmRegistry::Command> commands_;
};

TEST_F(VmFenceTest, TheBlocksAtTheAddressesAreFencedAndNoOthers) {
  Register();
  const auto fence = Begin();
  const auto commands = registry_.TakeCommands();
  ASSERT_EQ(commands.size(), 1u);
  ASSERT_TRUE(commands[0].fence.has_value());
  EXPECT_EQ(commands[0].fence->session_id, kSession);
  EXPECT_EQ(commands[0].fence->snapshot, 3u);
  EXPECT_THAT(commands[0].fence->blocks, ElementsAre(1));
  EXPECT_FALSE(registry_.OnFenced(1, kOther)) << "not the session's";
  EXPECT_FALSE(registry_.OnReleased(1, kSession)) << "not the answer to a FENCE";
  EXPECT_TRUE(registry_.OnFenced(1, kSession));
  EXPECT_TRUE(registry_.AwaitFence(fence, kSoon).ok());
  EXPECT_EQ(FencedFor(), kSession);
}

TEST_F(VmFenceTest, UnfencingReturnsWhenTheHookHasDoneIt) {
  Register();
  Fence();
  absl::Status unfenced;
  std::thread caller = UnfenceInBackground(unfenced);
  EXPECT_TRUE(commands_[0].unfence.has_value());
  EXPECT_TRUE(registry_.OnUnfenced(1, kSession));
  caller.join();
  EXPECT_TRUE(unfenced.ok()) << unfenced;
  EXPECT_EQ(FencedFor(), std::nullopt);
}

TEST_F(VmFenceTest, WhatIsNotFencedNeedsNoAnswer) {
  Register();
  EXPECT_TRUE(registry_.Unfence("vm", kSession).ok());
  Register(1, kOther);
  EXPECT_TRUE(registry_.Unfence("vm", kSession).ok()) << "the fence of another session stays";
  EXPECT_EQ(FencedFor(), kOther);
  EXPECT_THAT(registry_.TakeCommands(), IsEmpty());
}

TEST_F(VmFenceTest, TheHooksWordsReachTheCaller) {
  Register();
  const auto fence = Begin();
  EXPECT_TRUE(registry_.OnFenceFailed(1, kSession, "the blocks have changed"));
  EXPECT_EQ(registry_.AwaitFence(fence, kSoon),
            absl::FailedPreconditionError("VM \"vm\": the blocks have changed"));
  EXPECT_EQ(FencedFor(), std::nullopt);
  Fence();
  absl::Status unfenced;
  std::thread caller = UnfenceInBackground(unfenced);
  EXPECT_TRUE(registry_.OnUnfenceFailed(1, kSession, "out of memory"));
  caller.join();
  EXPECT_EQ(unfenced, absl::FailedPreconditionError("VM \"vm\": out of memory"));
  EXPECT_EQ(FencedFor(), kSession) << "it is there still";
}

// A guest that is resumed must not be fenced afterwards.
TEST_F(VmFenceTest, AFenceWhoseAnswerIsLateIsLiftedBeforeUnfenceReturns) {
  Register();
  const auto fence = Begin();
  registry_.TakeCommands();
  EXPECT_TRUE(absl::IsDeadlineExceeded(registry_.AwaitFence(fence, std::chrono::milliseconds(1))));
  absl::Status unfenced = absl::UnknownError("");
  std::thread caller([&] { unfenced = registry_.Unfence("vm", kSession); });
  EXPECT_TRUE(registry_.OnFenced(1, kSession));
  while ((commands_ = registry_.TakeCommands()).empty()) std::this_thread::yield();
  EXPECT_TRUE(commands_[0].unfence.has_value());
  EXPECT_TRUE(registry_.OnUnfenced(1, kSession));
  caller.join();
  EXPECT_TRUE(unfenced.ok()) << unfenced;
}

TEST_F(VmFenceTest, AConnectionThatIsLostLeavesItOpenWhetherThereIsAFence) {
  Register();
  const auto fence = Begin();
  registry_.OnDisconnected(1);
  EXPECT_TRUE(absl::IsUnavailable(registry_.AwaitFence(fence, kSoon)));
  EXPECT_TRUE(absl::IsUnavailable(registry_.Unfence("vm", kSession)));
  Register(2, kSession);  // its next connection tells
  EXPECT_EQ(FencedFor(), kSession);
}

TEST_F(VmFenceTest, AHookOfAnOlderProtocolIsNotAsked) {
  Register(1, std::nullopt, wire::kOldestAgentProtocolVersion);
  EXPECT_TRUE(absl::IsUnimplemented(registry_.BeginFence("vm", kSession, {kRam}).status()));
  EXPECT_TRUE(registry_.Unfence("vm", kSession).ok());
  EXPECT_THAT(registry_.TakeCommands(), IsEmpty());
}

TEST_F(VmFenceTest, ABlockThatIsNoLongerMappedIsNamed) {
  Register();
  const auto fence = registry_.BeginFence("vm", kSession, {kRam, 0x5000});
  EXPECT_TRUE(absl::IsFailedPrecondition(fence.status()));
  EXPECT_THAT(std::string(fence.status().message()), HasSubstr("0x5000 is no longer mapped"));
}

}  // namespace
}  // namespace postcopy
