#include "server/vm_registry.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "gmock/gmock.h"
#include "platform/ram_file.h"
#include "server/agent_limits.h"

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::chrono::seconds kSoon{10};
const SessionId kSession{{std::byte{1}}};

// A process that does nothing until it is killed.
class Sleeper {
 public:
  Sleeper() : pid_(fork()) {
    if (pid_ == 0) {
      for (;;) pause();
    }
  }
  ~Sleeper() { Kill(); }
  void Kill() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    pid_ = 0;
  }
  int pid() const { return pid_; }

 private:
  pid_t pid_;
};

class VmRegistryTest : public ::testing::Test {
 protected:
  UniqueFd File() { return UniqueFd(memfd_create("ram", MFD_CLOEXEC)); }

  VmRegistry::Registration Registration(const std::string& name, int pid) {
    VmRegistry::Registration registration;
    registration.message.snapshot = 3;
    registration.message.vm_name = name;
    registration.message.qmp_path = "/run/q";
    wire::RegisterBlock anonymous{0x1000000, 0x1000000, 0, wire::BlockKind::kAnonymous, false,
                                  "",        ""};
    wire::RegisterBlock shared{0x8000000, 0x1000000, 0, wire::BlockKind::kSharedFile, false,
                               "ram",     "/dev/shm/r"};
    registration.message.blocks = {anonymous, shared};
    registration.ram_files.push_back(File());
    auto process = Pidfd::Open(pid);
    EXPECT_TRUE(process.ok());
    registration.process = std::move(*process);
    return registration;
  }
  // Calls Arm() on another thread and returns once the command for the hook is there.
  std::thread ArmInBackground(absl::StatusOr<ArmedVm>& result, std::chrono::milliseconds timeout) {
    std::thread caller([this, &result, timeout] {
      result = registry_.Arm("vm", kSession, timeout, keepsake_, {1});
    });
    do {
      commands_ = registry_.TakeCommands();
    } while (commands_.empty());
    return caller;
  }

  VmRegistry registry_;
  const UniqueFd keepsake_ = File();
  Sleeper process_;
  std::vector<VmRegistry::Command> commands_;
};

TEST_F(VmRegistryTest, AProcessHasFewVms) {
  for (size_t i = 1; i <= kMaxVmsPerProcess; ++i) {
    ASSERT_TRUE(registry_.Register(i, Registration("vm" + std::to_string(i), process_.pid())).ok());
  }
  const absl::Status refused = registry_.Register(100, Registration("one-more", process_.pid()));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("8 are the limit of a process"));
  EXPECT_TRUE(registry_.Register(1, Registration("vm1", process_.pid())).ok());  // not one more
  EXPECT_TRUE(registry_.Register(101, Registration("other", getpid())).ok());
}

TEST_F(VmRegistryTest, AnotherNameOfAProcessEndsThoseThatItHasLeft) {
  ASSERT_TRUE(registry_.Register(1, Registration("old", process_.pid())).ok());
  registry_.OnDisconnected(1);
  EXPECT_EQ(registry_.List().size(), 1u);  // its process lives: it may come back
  ASSERT_TRUE(registry_.Register(2, Registration("new", process_.pid())).ok());
  EXPECT_FALSE(registry_.Find("old").ok());
  EXPECT_TRUE(registry_.Find("new").ok());
}

TEST_F(VmRegistryTest, AVmThatIsArmedIsKeptUntilItsProcessEnds) {
  auto armed = Registration("arriving", process_.pid());
  armed.message.armed_session = kSession;
  armed.message.blocks[1].armed = true;
  armed.userfault = File();
  armed.keepsake = File();
  ASSERT_TRUE(registry_.Register(1, std::move(armed)).ok());
  registry_.OnDisconnected(1);
  ASSERT_TRUE(registry_.Register(2, Registration("new", process_.pid())).ok());
  EXPECT_TRUE(registry_.Find("arriving").ok());
}

TEST_F(VmRegistryTest, AProcessHasFewDescriptors) {
  const auto large = [this](const std::string& name) {
    auto registration = Registration(name, process_.pid());
    const wire::RegisterBlock file = registration.message.blocks[1];
    registration.message.blocks.assign(wire::kMaxAgentBlocks, file);
    registration.ram_files.clear();
    for (size_t i = 0; i < wire::kMaxAgentBlocks; ++i) registration.ram_files.push_back(File());
    return registration;
  };
  ASSERT_TRUE(registry_.Register(1, large("a")).ok());
  ASSERT_TRUE(registry_.Register(2, large("b")).ok());
  const absl::Status refused = registry_.Register(3, large("c"));
  EXPECT_TRUE(absl::IsResourceExhausted(refused)) << refused;
  EXPECT_THAT(std::string(refused.message()), HasSubstr("132 are the limit of a process"));
}

TEST_F(VmRegistryTest, AVmIsFoundByItsName) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  auto record = registry_.Find("vm");
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->pid(), process_.pid());
  EXPECT_EQ(record->qmp_path, "/run/q");
  EXPECT_TRUE(record->connected);
  ASSERT_EQ(record->blocks.size(), 2u);
  EXPECT_FALSE(record->blocks[0].ram_file.valid());
  EXPECT_TRUE(record->blocks[1].ram_file.valid());
  EXPECT_EQ(registry_.List().size(), 1u);
}

TEST_F(VmRegistryTest, AnUnknownNameSaysWhatMayBeWrong) {
  const auto status = registry_.Find("x").status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_EQ(status.message(),
            "no VM named \"x\" has registered with this host's daemon (a QEMU started without "
            "libpostcopy-preload.so is not seen)");
}

TEST_F(VmRegistryTest, DescriptorsHandedOutOutliveTheRegistration) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  auto record = registry_.Find("vm");
  process_.Kill();
  registry_.RemoveEnded();
  EXPECT_TRUE(QueryRamFileSize(record->blocks[1].ram_file.get()).ok());
}

TEST_F(VmRegistryTest, ANameBelongsToOneLiveProcess) {
  Sleeper second;
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  const auto refused = registry_.Register(2, Registration("vm", second.pid()));
  EXPECT_TRUE(absl::IsAlreadyExists(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr(std::to_string(process_.pid())));
  process_.Kill();
  EXPECT_TRUE(registry_.Register(2, Registration("vm", second.pid())).ok());
  EXPECT_EQ(registry_.Find("vm")->pid(), second.pid());
}

TEST_F(VmRegistryTest, AConnectionCannotChangeItsName) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(registry_.Register(1, Registration("other", process_.pid()))));
}

TEST_F(VmRegistryTest, AVmStaysWhileItsProcessLives) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  registry_.OnDisconnected(1);
  EXPECT_FALSE(registry_.Find("vm")->connected);
  EXPECT_THAT(registry_.RemoveEnded(), IsEmpty());
  EXPECT_TRUE(absl::IsUnavailable(registry_.Arm("vm", kSession, kSoon, keepsake_).status()));
  ASSERT_TRUE(registry_.Register(2, Registration("vm", process_.pid())).ok());
  EXPECT_TRUE(registry_.Find("vm")->connected);
  process_.Kill();
  EXPECT_TRUE(absl::IsNotFound(registry_.Find("vm").status()));
  EXPECT_THAT(registry_.RemoveEnded(), ElementsAre("vm"));
}

TEST_F(VmRegistryTest, ArmReturnsTheUserfaultfdAndTheBlocksAskedFor) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  absl::StatusOr<ArmedVm> armed;
  std::thread caller = ArmInBackground(armed, kSoon);
  ASSERT_TRUE(commands_[0].arm.has_value());
  EXPECT_EQ(commands_[0].client, 1u);
  EXPECT_EQ(commands_[0].arm->snapshot, 3u);
  EXPECT_THAT(commands_[0].arm->blocks, ElementsAre(1));
  EXPECT_TRUE(*IsSameRamFile(commands_[0].keepsake.get(), keepsake_.get()));
  EXPECT_FALSE(registry_.OnArmed(2, kSession, File())) << "somebody else's answer";
  EXPECT_TRUE(registry_.OnArmed(1, kSession, File()));
  caller.join();
  ASSERT_TRUE(armed.ok()) << armed.status();
  EXPECT_TRUE(armed->userfault.valid());
  ASSERT_EQ(armed->blocks.size(), 1u);
  EXPECT_EQ(armed->blocks[0].name, "ram");
  EXPECT_EQ(registry_.Find("vm")->arming->session_id, kSession);
  EXPECT_TRUE(*IsSameRamFile(registry_.Find("vm")->arming->keepsake.get(), keepsake_.get()));
}

TEST_F(VmRegistryTest, TheHooksOwnWordsReachWhoeverAsked) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  absl::StatusOr<ArmedVm> armed;
  std::thread caller = ArmInBackground(armed, kSoon);
  EXPECT_TRUE(registry_.OnArmFailed(1, kSession, "page 7 is present"));
  caller.join();
  EXPECT_TRUE(absl::IsFailedPrecondition(armed.status()));
  EXPECT_EQ(armed.status().message(), "VM \"vm\": page 7 is present");
}

TEST_F(VmRegistryTest, AnAnswerThatComesTooLateIsUndone) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  absl::StatusOr<ArmedVm> armed;
  std::thread caller = ArmInBackground(armed, std::chrono::milliseconds(1));
  caller.join();
  EXPECT_TRUE(absl::IsDeadlineExceeded(armed.status()));
  EXPECT_TRUE(absl::IsUnavailable(registry_.Arm("vm", kSession, kSoon, keepsake_).status()));
  EXPECT_TRUE(registry_.OnArmed(1, kSession, File()));
  const auto commands = registry_.TakeCommands();
  ASSERT_EQ(commands.size(), 1u);
  EXPECT_FALSE(commands[0].arm.has_value());
  EXPECT_EQ(commands[0].release.session_id, kSession);
  EXPECT_FALSE(registry_.Find("vm")->arming.has_value());
  EXPECT_TRUE(registry_.OnReleased(1, kSession));
  EXPECT_FALSE(registry_.OnReleased(1, kSession)) << "nobody asked for a second one";
}

TEST_F(VmRegistryTest, ALostConnectionEndsTheWait) {
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  absl::StatusOr<ArmedVm> armed;
  std::thread caller = ArmInBackground(armed, kSoon);
  registry_.OnDisconnected(1);
  caller.join();
  EXPECT_TRUE(absl::IsUnavailable(armed.status()));
}

TEST_F(VmRegistryTest, AnArmedRegistrationKeepsItsUserfaultfd) {
  auto registration = Registration("vm", process_.pid());
  registration.message.armed_session = kSession;
  registration.message.blocks[1].armed = true;
  registration.userfault = File();
  registration.keepsake = File();
  ASSERT_TRUE(registry_.Register(1, std::move(registration)).ok());
  auto record = registry_.Find("vm");
  ASSERT_TRUE(record->arming.has_value());
  EXPECT_EQ(record->arming->session_id, kSession);
  EXPECT_THAT(record->arming->blocks, ElementsAre(1));
  EXPECT_TRUE(record->arming->userfault.valid());
  EXPECT_TRUE(record->arming->keepsake.valid());
}

TEST_F(VmRegistryTest, WakesItsServerForEachRequest) {
  std::atomic<int> wakes = 0;
  registry_.SetWake([&] { ++wakes; });
  ASSERT_TRUE(registry_.Register(1, Registration("vm", process_.pid())).ok());
  absl::StatusOr<ArmedVm> armed;
  std::thread caller = ArmInBackground(armed, kSoon);
  registry_.OnArmFailed(1, kSession, "no");
  caller.join();
  EXPECT_EQ(wakes, 1);
}

}  // namespace
}  // namespace postcopy
