// A destination's VM that is armed, over memory and a userfaultfd of the test's process: what an earlier
// daemon has left of a session, for the next to resume.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "core/page_map.h"
#include "engine/keepsake.h"
#include "gtest/gtest.h"
#include "platform/duplicate_fd.h"
#include "platform/userfault.h"
#include "tests/relocation/daemon_fixture.h"

namespace postcopy {

class ArmedVmFixture : public DaemonFixture {
 protected:
  static constexpr uint64_t kPages = 64;
  static constexpr uint64_t kHere = 10;  // of these, what has come

  ArmedVmFixture() {
    session_.bytes[0] = std::byte{7};
    MakeMemory();
  }
  ~ArmedVmFixture() override {
    if (vmm_ > 0) kill(vmm_, SIGKILL);
    munmap(memory_, kPages * kPageBytes);
  }

  // The VM comes back to its daemon, in the middle of the session, as process `pid`.
  void Register(pid_t pid) {
    VmRegistry::Registration registration;
    registration.message.vm_name = "web1";
    registration.message.qmp_path = "/qmp";
    wire::RegisterBlock block;
    block.kind = wire::BlockKind::kAnonymous;
    block.address = reinterpret_cast<uint64_t>(memory_);
    block.size_bytes = kPages * kPageBytes;
    block.armed = true;
    registration.message.blocks.push_back(block);
    registration.message.armed_session = session_;
    registration.userfault = *DuplicateFd(userfault_);
    registration.keepsake = *DuplicateFd(keepsake_->memfd());
    registration.process = std::move(*Pidfd::Open(pid));
    ASSERT_TRUE(registry_.Register(1, std::move(registration)).ok());
  }
  void RegisterThisProcess() { Register(getpid()); }
  // For a VMM that is to be killed: its memory stays this process's.
  void RegisterAnother() {
    vmm_ = fork();
    if (vmm_ == 0) {
      for (;;) pause();
    }
    Register(vmm_);
  }

  pid_t vmm_ = 0;
  char* memory_ = nullptr;
  UniqueFd userfault_;
  std::optional<Keepsake> keepsake_;
  SessionId session_{};

 private:
  // Armed, with a few pages of content, as an earlier daemon has left it.
  void MakeMemory() {
    memory_ = static_cast<char*>(mmap(nullptr, kPages * kPageBytes, PROT_READ | PROT_WRITE,
                                      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    madvise(memory_, kPages * kPageBytes, MADV_NOHUGEPAGE);
    const auto address = reinterpret_cast<uint64_t>(memory_);
    userfault_ = std::move(*CreateUserfault(-1));
    EXPECT_TRUE(
        RegisterFaults(userfault_.get(), address, kPages * kPageBytes, FaultMode::kMissing).ok());
    // Nobody listens there.
    auto made =
        Keepsake::Make({session_, {{{"ram", kPages * kPageBytes}, address}}, {"127.0.0.1:1"}});
    EXPECT_TRUE(made.ok());
    keepsake_.emplace(std::move(*made));
    PageMap map(keepsake_->layout(), keepsake_->page_bytes());
    const std::vector<std::byte> content(kHere * kPageBytes, std::byte{0x41});
    for (uint64_t page = 0; page < kHere; ++page) map.Claim({{0}, {page}});
    EXPECT_EQ(CopyPages(userfault_.get(), address, content.data(), content.size()).outcome,
              InstallOutcome::kInstalled);
    for (uint64_t page = 0; page < kHere; ++page) map.Finish({{0}, {page}}, true);
  }
};

}  // namespace postcopy
