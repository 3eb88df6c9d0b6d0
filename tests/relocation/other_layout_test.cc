// A destination whose page server describes other memory than the source's daemon has offered.
#include <sys/mman.h>
#include <unistd.h>

#include <thread>

#include "relocation/destination_session.h"
#include "tests/relocation/daemon_fixture.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

constexpr uint64_t kPages = 64;

class OtherLayoutTest : public DaemonFixture {
 protected:
  OtherLayoutTest() {
    memory_ = mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    world_.vmm_state = GuestState::kWaitsForIncoming;
    description_.pid = getpid();
    VmmRamBackend ram;
    ram.id = "ram";
    ram.size_bytes = kPages * kPageBytes;
    description_.ram.push_back(ram);
    VmRegistry::Registration registration;
    registration.message.vm_name = "web1";
    registration.message.qmp_path = "/qmp";
    wire::RegisterBlock block;
    block.kind = wire::BlockKind::kAnonymous;
    block.address = reinterpret_cast<uint64_t>(memory_);
    block.size_bytes = kPages * kPageBytes;
    registration.message.blocks.push_back(block);
    registration.process = std::move(*Pidfd::Open(getpid()));
    EXPECT_TRUE(registry_.Register(1, std::move(registration)).ok());
  }
  ~OtherLayoutTest() override { munmap(memory_, kPages * kPageBytes); }

  // What becomes of an offer whose page server greets with `layout`.
  absl::Status PrepareAgainst(const MemoryLayout& layout) {
    ScriptedListener page_server;
    Offer offer;
    offer.session = "00112233445566778899aabbccddeeff";
    offer.vm = "web1";
    offer.ram.push_back({{"ram", kPages * kPageBytes}, {}});
    offer.data_addresses = {page_server.address()};
    offer.control_address = "there:7700";
    std::atomic<bool> done{false};
    std::thread hook([&] {
      while (!done) {
        for (const VmRegistry::Command& command : registry_.TakeCommands()) {
          if (command.arm.has_value()) {
            registry_.OnArmed(1, command.arm->session_id, std::move(*CreateUserfault(-1)));
          } else {
            registry_.OnReleased(1, command.release.session_id);
          }
        }
        std::this_thread::yield();
      }
    });
    std::vector<std::unique_ptr<ScriptedLane>> lanes;
    std::thread source([&] {
      for (int i = 0; i < 3; ++i) {
        lanes.push_back(page_server.Accept());
        lanes.back()->Send(wire::EncodeWelcome({1, layout}));
      }
    });
    DaemonParts parts = Parts();
    const auto session = DestinationSession::Prepare(parts, offer, [] { return false; });
    source.join();
    done = true;
    hook.join();
    return session.status();
  }

  void* memory_;
};

TEST_F(OtherLayoutTest, TheOfferedOneIsTaken) {
  const absl::Status prepared = PrepareAgainst({{{"ram", kPages * kPageBytes}}});
  EXPECT_TRUE(prepared.ok()) << prepared;
}

TEST_F(OtherLayoutTest, OneRegionMoreIsRefused) {
  const absl::Status prepared =
      PrepareAgainst({{{"ram", kPages * kPageBytes}, {"evil", uint64_t{1} << 40}}});
  EXPECT_THAT(prepared.message(), HasSubstr("describes another memory than the offer"));
}

TEST_F(OtherLayoutTest, AnotherNameOrSizeIsRefused) {
  for (const Region& region : {Region{"ram", 2 * kPages * kPageBytes}, Region{"ram", kPageBytes},
                               Region{"rom", kPages * kPageBytes}}) {
    EXPECT_THAT(PrepareAgainst({{region}}).message(),
                HasSubstr("describes another memory than the offer"));
  }
}

}  // namespace
}  // namespace postcopy
