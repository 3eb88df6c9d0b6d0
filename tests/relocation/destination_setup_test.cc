// A source that no longer waits while the destination prepares: what takes long stops, and nothing of
// it is left.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "platform/duplicate_fd.h"
#include "platform/userfault.h"
#include "relocation/destination_session.h"
#include "tests/relocation/daemon_fixture.h"
#include "tests/server/memory_source.h"

namespace postcopy {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::Not;

constexpr uint64_t kStepBytes = 64 << 20;  // is allocated between two looks
constexpr uint64_t kRamBytes = 4 * kStepBytes;

class DestinationSetupTest : public DaemonFixture {
 protected:
  DestinationSetupTest() {
    registry_.SetWake([this] { AnswerAsHook(); });
    EXPECT_EQ(ftruncate(file_.get(), kRamBytes), 0);
    memory_ = mmap(nullptr, kRamBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0);
    RegisterVm();
    world_.vmm_state = GuestState::kWaitsForIncoming;
    description_.pid = getpid();
    description_.ram.push_back(
        {"ram", "memory-backend-file", kRamBytes, true, "/dev/shm/ram", false});

    offer_.session = session_.ToString();
    offer_.vm = "web1";
    offer_.ram.push_back({{"ram", kRamBytes}, {}});
    offer_.data_addresses = page_server_->addresses();
    offer_.control_address = "there:7700";
    page_server_->Add(session_, std::make_shared<MemorySource>(MemoryLayout{{{"ram", kRamBytes}}}));
  }
  ~DestinationSetupTest() override {
    registry_.SetWake(nullptr);
    munmap(memory_, kRamBytes);
  }

  absl::Status Prepare(const HasGone& has_gone) {
    const DaemonParts parts = Parts();
    return DestinationSession::Prepare(parts, offer_, has_gone).status();
  }
  uint64_t AllocatedBytes() const {
    struct stat stat {};
    fstat(file_.get(), &stat);
    return static_cast<uint64_t>(stat.st_blocks) * 512;
  }
  void ExpectNothingLeft() {
    EXPECT_TRUE(absl::IsNotFound(store_->Read(session_, SessionRole::kDestination).status()));
    EXPECT_FALSE(registry_.Find("web1")->arming.has_value());
    EXPECT_EQ(AllocatedBytes(), 0u);
  }

  const SessionId session_{{std::byte{7}}};
  Offer offer_;

 private:
  void AnswerAsHook() {
    for (const VmRegistry::Command& command : registry_.TakeCommands()) {
      if (command.arm.has_value()) {
        registry_.OnArmed(1, command.arm->session_id, std::move(*CreateUserfault(-1)));
      } else {
        registry_.OnReleased(1, command.release.session_id);
      }
    }
  }
  void RegisterVm() {
    VmRegistry::Registration registration;
    registration.message.vm_name = "web1";
    registration.message.qmp_path = "/qmp";
    wire::RegisterBlock block;
    block.kind = wire::BlockKind::kSharedFile;
    block.address = reinterpret_cast<uint64_t>(memory_);
    block.size_bytes = kRamBytes;
    block.path = "/dev/shm/ram";
    registration.message.blocks.push_back(block);
    registration.ram_files.push_back(std::move(*DuplicateFd(file_)));
    registration.process = std::move(*Pidfd::Open(getpid()));
    EXPECT_TRUE(registry_.Register(1, std::move(registration)).ok());
  }

  const UniqueFd file_{memfd_create("ram", MFD_CLOEXEC)};
  void* memory_ = nullptr;
};

TEST_F(DestinationSetupTest, WhileTheSourceWaitsItIsPrepared) {
  const absl::Status prepared = Prepare([] { return false; });
  EXPECT_TRUE(prepared.ok()) << prepared;
  EXPECT_THAT(world_.Calls(), Contains("vmm prepare-destination"));
}

TEST_F(DestinationSetupTest, WhenTheSourceHasGoneNoMoreMemoryIsAllocated) {
  offer_.ram[0].data = {{{0}, kRamBytes / kPageBytes}};
  std::vector<uint64_t> allocated;  // at each look
  const absl::Status prepared = Prepare([&] {
    allocated.push_back(AllocatedBytes());
    return allocated.size() == 2;
  });
  EXPECT_TRUE(absl::IsCancelled(prepared)) << prepared;
  EXPECT_THAT(allocated, ElementsAre(0u, kStepBytes));
  ExpectNothingLeft();
}

TEST_F(DestinationSetupTest, WhenTheSourceHasGoneItsPageServerIsNotConnectedTo) {
  offer_.data_addresses = {"127.0.0.1:1"};
  const absl::Status prepared = Prepare([] { return true; });
  EXPECT_TRUE(absl::IsCancelled(prepared)) << prepared;
  EXPECT_THAT(world_.Calls(), Not(Contains("vmm prepare-destination")));
  ExpectNothingLeft();
}

TEST_F(DestinationSetupTest, WhenTheSourceGoesWhileTheVmmIsPreparedNoSessionStays) {
  std::atomic<bool> gone = false;
  world_.on_call = [&](const std::string& call) {
    if (call == "vmm prepare-destination") gone = true;
  };
  const absl::Status prepared = Prepare([&] { return gone.load(); });
  EXPECT_TRUE(gone);
  EXPECT_TRUE(absl::IsCancelled(prepared)) << prepared;
  ExpectNothingLeft();
}

}  // namespace
}  // namespace postcopy
