// The hook in Debian's unpatched QEMU: registered, armed with nothing present, faults delivered.
//
// QEMU waits with -S -incoming defer and its RAM is read through its own monitor, which makes QEMU
// itself touch it.
#include <array>

#include "platform/ram_file.h"
#include "platform/userfault.h"
#include "tests/preload/hook_fixture.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

constexpr char kQemu[] = "/usr/bin/qemu-system-x86_64";
constexpr uint64_t kRamBytes = uint64_t{256} << 20;
const SessionId kSession{{std::byte{1}, std::byte{2}}};

class HookQemuTest : public HookFixture {
 protected:
  void SetUp() override {
    if (access(kQemu, X_OK) != 0) GTEST_SKIP() << kQemu << " is not installed";
    HookFixture::SetUp();
  }

  std::vector<std::string> Arguments(const std::string& ram_options) const {
    return {kQemu, "-nodefaults", "-display", "none", "-S", "-incoming", "defer", "-accel", "tcg",
            "-object",
            "memory-backend-file,id=ram,size=256M,mem-path=" + Path("ram") + ",share=on" +
                ram_options,
            "-machine", "pc,memory-backend=ram", "-monitor", "stdio", "-qmp",
            "unix:" + Path("qmp.sock") + ",server=on,wait=off"};
  }

  // The position of the one shared block.
  size_t SharedBlock(const VmRecord& record) {
    for (size_t i = 0; i < record.blocks.size(); ++i) {
      if (record.blocks[i].kind == wire::BlockKind::kSharedFile) return i;
    }
    ADD_FAILURE() << "no shared block";
    return 0;
  }
  bool WaitForSharedBlock(const std::string& vm) {
    return Eventually([&] {
      auto record = registry_->Find(vm);
      if (!record.ok()) return false;
      for (const VmBlock& block : record->blocks) {
        if (block.kind == wire::BlockKind::kSharedFile) return true;
      }
      return false;
    });
  }

  // Arms the VM and answers the one fault that `touch` makes QEMU take at guest address 0x5000.
  void ArmAndServe(const std::string& vm, const std::function<void()>& touch) {
    auto record = registry_->Find(vm);
    ASSERT_TRUE(record.ok()) << record.status();
    EXPECT_EQ(record->problem, "");
    const size_t position = SharedBlock(*record);
    const VmBlock& block = record->blocks[position];
    EXPECT_EQ(block.size_bytes, kRamBytes);
    EXPECT_EQ(block.path, Path("ram"));
    auto armed = registry_->Arm(vm, kSession, std::chrono::seconds(10), keepsake_, {position});
    ASSERT_TRUE(armed.ok()) << armed.status();
    auto data = FindRamFileData(block.ram_file.get(), 0, kRamBytes);
    ASSERT_TRUE(data.ok());
    EXPECT_FALSE(data->has_value()) << "the RAM file is not empty";

    touch();
    std::array<FaultEvent, 16> events;
    FaultEvent fault;
    ASSERT_TRUE(Eventually([&] {
      auto count = ReadFaultEvents(armed->userfault.get(), events);
      if (!count.ok() || *count == 0) return false;
      fault = events[0];
      return true;
    }));
    EXPECT_EQ(fault.kind, FaultEvent::Kind::kMissing);
    EXPECT_EQ(fault.address & ~uint64_t{4095}, block.address + 0x5000);
    const std::array<std::byte, 4> word{std::byte{0x78}, std::byte{0x56}, std::byte{0x34},
                                        std::byte{0x12}};
    ASSERT_EQ(AllocateRamFile(block.ram_file.get(), 0x5000, 4096).ok(), true);
    ASSERT_EQ(WriteRamFile(block.ram_file.get(), 0x5000, word), 0);
    EXPECT_EQ(ContinuePages(armed->userfault.get(), block.address + 0x5000, 4096).outcome,
              InstallOutcome::kInstalled);
    ASSERT_TRUE(
        UnregisterFaults(armed->userfault.get(), block.address, block.size_bytes).ok());
    EXPECT_TRUE(registry_->Release(vm, kSession).ok());
  }

  void RunOnce(const std::string& ram_options, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = Arguments(ram_options);
    arguments.insert(arguments.end(), more.begin(), more.end());
    Program qemu(arguments, Hooked("vm"), Path("stderr"));
    ASSERT_TRUE(WaitForSharedBlock("vm")) << qemu.Stderr();
    EXPECT_EQ(registry_->Find("vm")->pid(), qemu.pid());
    // The monitor answers once the machine is complete: all of QEMU's own set-up is behind us.
    qemu.Send("info status");
    std::string line;
    do line = qemu.ReadLine();
    while (line.find("VM status") == std::string::npos && line != "(end)");
    ArmAndServe("vm", [&] { qemu.Send("xp /1wx 0x5000"); });
    do line = qemu.ReadLine();
    while (line.find("0000000000005000:") == std::string::npos && line != "(end)");
    EXPECT_THAT(line, HasSubstr("0x12345678"));
    qemu.Send("quit");
    EXPECT_EQ(qemu.Wait(), 0) << qemu.Stderr();
    EXPECT_TRUE(Eventually([&] { return absl::IsNotFound(registry_->Find("vm").status()); }));
  }
};

TEST_F(HookQemuTest, RamIsArmedAndServed) { RunOnce("", {}); }

TEST_F(HookQemuTest, PreallocatedRamIsEmptiedFirst) { RunOnce(",prealloc=on", {}); }

TEST_F(HookQemuTest, WorksInASandbox) {
  RunOnce("", {"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"});
}

TEST_F(HookQemuTest, FollowsADaemonizedQemu) {
  std::vector<std::string> arguments = Arguments("");
  for (std::string& argument : arguments) {
    if (argument == "stdio") argument = "none";
  }
  arguments.insert(arguments.end(), {"-daemonize", "-pidfile", Path("pid")});
  Program launcher(arguments, Hooked("vm"), Path("stderr"));
  EXPECT_EQ(launcher.Wait(), 0) << launcher.Stderr();
  ASSERT_TRUE(WaitForSharedBlock("vm")) << launcher.Stderr();
  int pid = 0;
  std::ifstream(Path("pid")) >> pid;
  auto record = registry_->Find("vm");
  ASSERT_TRUE(record.ok());
  EXPECT_EQ(record->pid(), pid);
  auto armed =
      registry_->Arm("vm", kSession, std::chrono::seconds(10), keepsake_, {SharedBlock(*record)});
  EXPECT_TRUE(armed.ok()) << armed.status();
  EXPECT_TRUE(record->process.Kill().ok());
  EXPECT_TRUE(record->process.WaitEnded(std::chrono::seconds(5)));
}

TEST_F(HookQemuTest, AWrapperKeepsTheHook) {
  std::vector<std::string> arguments = {"/usr/bin/timeout", "60"};
  for (const std::string& argument : Arguments("")) arguments.push_back(argument);
  Program wrapper(arguments, Hooked("vm"), Path("stderr"));
  ASSERT_TRUE(WaitForSharedBlock("vm")) << wrapper.Stderr();
  auto record = registry_->Find("vm");
  EXPECT_NE(record->pid(), wrapper.pid());
  wrapper.Send("quit");
  EXPECT_EQ(wrapper.Wait(), 0) << wrapper.Stderr();
}

}  // namespace
}  // namespace postcopy
