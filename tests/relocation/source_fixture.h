// A daemon with one VM, "web1", that can be relocated: what tests of a source's session share.
#pragma once

#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "relocation/relocator.h"
#include "tests/relocation/daemon_fixture.h"

namespace postcopy {

inline constexpr uint64_t kRamBytes = 1 << 20;

class SourceSessionTest : public DaemonFixture {
 protected:
  SourceSessionTest() {
    registry_.SetWake([this] { AnswerAsHook(); });
    RegisterVm();
    StartDaemon(std::chrono::hours(1));  // nobody asks but a test
  }
  // Another daemon over the same records and VMs.
  void StartDaemon(std::chrono::milliseconds ask_owner_every) {
    relocator_.reset();
    DaemonParts parts = Parts();
    parts.ask_owner_every = ask_owner_every;
    relocator_ = *Relocator::Start(std::move(parts));
  }
  ~SourceSessionTest() override {
    if (child_ > 0) EndThatProcess();
    relocator_.reset();
    EXPECT_FALSE(world_.ran_twice) << "the guest ran on both sides";
  }

  // `arrival`: armed for that session, as after a restart of its daemon.
  std::string vm_name_ = "web1";  // that RegisterVm() registers
  void RegisterVm(std::optional<SessionId> arrival = std::nullopt, int pid = getpid(),
                  uint16_t version = wire::kAgentProtocolVersion,
                  std::optional<SessionId> fenced = std::nullopt) {
    UniqueFd file(memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file.get(), kRamBytes), 0);
    ASSERT_EQ(pwrite(file.get(), "ram", 3, 0), 3);
    VmRegistry::Registration registration;
    registration.message.version = version;
    registration.message.fenced_session = fenced;
    registration.message.vm_name = vm_name_;
    registration.message.qmp_path = "/qmp";
    wire::RegisterBlock block;
    block.kind = wire::BlockKind::kSharedFile;
    block.address = 0x10000;
    block.size_bytes = kRamBytes;
    block.path = "/dev/shm/ram";
    block.armed = arrival.has_value();
    block.fenced = fenced.has_value();
    registration.message.blocks.push_back(block);
    registration.message.armed_session = arrival;
    if (arrival.has_value()) {
      registration.userfault = UniqueFd(memfd_create("armed", MFD_CLOEXEC));
      registration.keepsake = UniqueFd(memfd_create("kept", MFD_CLOEXEC));
    }
    registration.ram_files.push_back(std::move(file));
    registration.process = std::move(*Pidfd::Open(pid));
    const absl::Status registered = registry_.Register(1, std::move(registration));
    ASSERT_TRUE(registered.ok()) << registered;

    description_.pid = pid;
    description_.machine_type = "pc-i440fx-7.2";
    description_.vcpus = 1;
    description_.ram.clear();
    description_.ram.push_back(
        {"ram", "memory-backend-file", kRamBytes, true, "/dev/shm/ram", false});
  }

  // Prepares VM web2, whose VMM is a process of its own.
  absl::StatusOr<std::string> PrepareOfAnotherProcess() {
    child_ = fork();
    if (child_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      for (;;) pause();
    }
    registry_.OnDisconnected(1);
    vm_name_ = "web2";
    RegisterVm(std::nullopt, child_);
    return relocator_->Prepare({"web2", "there:7700", "", false});
  }
  void EndThatProcess() {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = 0;
  }

  absl::StatusOr<std::optional<double>> PrepareAndSwitch() {
    const auto session = relocator_->Prepare({"web1", "there:7700", "", false});
    if (!session.ok()) return session.status();
    session_ = *session;
    return relocator_->Switch(session_);
  }
  SessionState state() { return relocator_->Stats("web1")->state; }
  // Waits until the session comes to a state by itself.
  bool Comes(SessionState wanted) {
    for (int i = 0; i < 2000; ++i) {
      const auto now = relocator_->Stats("web1");
      if (now.ok() && now->state == wanted) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  RecordedOutcome record() { return *relocator_->OnQuery(session_, SessionRole::kSource); }

  std::string session_;
  std::unique_ptr<Relocator> relocator_;

 private:
  pid_t child_ = 0;
};

}  // namespace postcopy
