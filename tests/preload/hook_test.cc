// The hook in a program that maps memory as QEMU does, and what the library needs and shows.
#include <array>

#include "platform/ram_file.h"
#include "platform/userfault.h"
#include "tests/preload/hook_fixture.h"

namespace postcopy {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::UnorderedElementsAre;

constexpr uint64_t kMegabyte = 1 << 20;
const SessionId kSession{{std::byte{7}}};

class HookTest : public HookFixture {
 protected:
  Program Start(const std::string& vm) {
    return Program({POSTCOPY_FAKE_VMM}, Hooked(vm), Path("stderr"));
  }
  std::string Shared(const std::string& file, uint64_t megabytes, const std::string& more = "") {
    return "shared " + Path(file) + " " + std::to_string(megabytes * kMegabyte) + " " + more;
  }
  std::string Anonymous(uint64_t megabytes, const std::string& more = "") {
    return "anonymous " + std::to_string(megabytes * kMegabyte) + " " + more;
  }
};

std::vector<std::string> OutputOf(const std::string& command) {
  std::vector<std::string> lines;
  FILE* pipe = popen(command.c_str(), "r");
  char line[1024];
  while (fgets(line, sizeof line, pipe) != nullptr) lines.push_back(line);
  EXPECT_EQ(pclose(pipe), 0) << command;
  return lines;
}

TEST_F(HookTest, NeedsNothingBeyondLibc) {
  EXPECT_THAT(
      OutputOf(std::string("objdump -p ") + POSTCOPY_PRELOAD_LIBRARY + " | grep NEEDED"),
      Each(AnyOf(HasSubstr(" libc.so.6"), HasSubstr(" ld-linux-x86-64.so.2"))));
}

TEST_F(HookTest, ShowsTheThreeFunctionsOnly) {
  EXPECT_THAT(OutputOf(std::string("nm -D --defined-only ") + POSTCOPY_PRELOAD_LIBRARY),
              UnorderedElementsAre(HasSubstr(" T mmap\n"), HasSubstr(" T mmap64\n"),
                                   HasSubstr(" T munmap\n")));
}

TEST_F(HookTest, RegistersBlocksInTheOrderOfMapping) {
  Program vmm = Start("web");
  EXPECT_EQ(vmm.Ask("plain 67108864"), "mapped 0");
  EXPECT_EQ(vmm.Ask(Shared("ram", 2)), "mapped 1");
  EXPECT_EQ(vmm.Ask(Anonymous(32)), "mapped 2");
  EXPECT_EQ(vmm.Ask(Anonymous(1)), "mapped 3");
  ASSERT_TRUE(Registered("web", 2)) << vmm.Stderr();
  auto record = registry_->Find("web");
  EXPECT_EQ(record->pid(), vmm.pid());
  EXPECT_EQ(record->problem, "");
  EXPECT_EQ(record->blocks[0].kind, wire::BlockKind::kSharedFile);
  EXPECT_EQ(record->blocks[0].size_bytes, 2 * kMegabyte);
  EXPECT_EQ(record->blocks[0].path, Path("ram"));
  EXPECT_EQ(record->blocks[1].kind, wire::BlockKind::kAnonymous);
  EXPECT_EQ(record->blocks[1].size_bytes, 32 * kMegabyte);
}

TEST_F(HookTest, LeavesAProgramWithoutGuestRamAlone) {
  Program vmm = Start("web");
  EXPECT_EQ(vmm.Ask("plain 67108864"), "mapped 0");
  EXPECT_EQ(vmm.Ask(Anonymous(1)), "mapped 1");
  EXPECT_THAT(vmm.Ask("env LD_PRELOAD"), HasSubstr("libpostcopy-preload.so"));
  EXPECT_EQ(vmm.Ask("unmap 1"), "unmapped");
  EXPECT_EQ(vmm.Stderr(), "");
  EXPECT_THAT(registry_->List(), IsEmpty());
  EXPECT_THAT(OutputOf("ls /proc/" + std::to_string(vmm.pid()) + "/task"), ::testing::SizeIs(1));
}

TEST_F(HookTest, SaysOnceThatItRunsUnhookedWithoutAName) {
  Program vmm({POSTCOPY_FAKE_VMM}, {std::string("LD_PRELOAD=") + POSTCOPY_PRELOAD_LIBRARY},
              Path("stderr"));
  EXPECT_EQ(vmm.Ask(Shared("ram", 2)), "mapped 0");
  EXPECT_EQ(vmm.Ask(Anonymous(32)), "mapped 1");
  EXPECT_EQ(vmm.Stderr(), "libpostcopy: POSTCOPY_VM is not set: this VM runs unhooked\n");
}

TEST_F(HookTest, LeavesTheEnvironmentOnceRamIsHooked) {
  Program vmm = Start("web");
  const std::string before = vmm.Ask("env-at LD_PRELOAD");
  EXPECT_THAT(before, HasSubstr("libpostcopy-preload.so"));
  EXPECT_EQ(vmm.Ask(Shared("ram", 2)), "mapped 0");
  const std::string after = vmm.Ask("env-at LD_PRELOAD");
  EXPECT_THAT(after, testing::Not(HasSubstr("libpostcopy-preload.so")));
  // At the place where another thread may be reading it.
  EXPECT_EQ(after.substr(0, after.find(' ')), before.substr(0, before.find(' ')));
  EXPECT_EQ(vmm.Ask("env POSTCOPY_VM"), "web");
  EXPECT_EQ(vmm.Ask("child-maps libpostcopy-preload.so"), "0") << "its children are not hooked";
}

TEST_F(HookTest, TellsWhatCannotBeHooked) {
  Program vmm = Start("web");
  EXPECT_EQ(vmm.Ask("private-file " + Path("ram") + " 33554432"), "mapped 0");
  ASSERT_TRUE(Registered("web", 0)) << vmm.Stderr();
  EXPECT_THAT(registry_->Find("web")->problem, HasSubstr("add share=on"));
  EXPECT_THAT(vmm.Stderr(), HasSubstr("add share=on"));
  auto armed = registry_->Arm("web", kSession, std::chrono::seconds(5), keepsake_);
  EXPECT_TRUE(absl::IsFailedPrecondition(armed.status())) << armed.status();
  EXPECT_THAT(std::string(armed.status().message()), HasSubstr("add share=on"));
}

TEST_F(HookTest, ABlockThatIsUnmappedLeavesTheList) {
  Program vmm = Start("web");
  vmm.Ask(Shared("a", 2));
  vmm.Ask(Shared("b", 4));
  ASSERT_TRUE(Registered("web", 2));
  EXPECT_EQ(vmm.Ask("unmap 0"), "unmapped");
  ASSERT_TRUE(Registered("web", 1));
  EXPECT_EQ(registry_->Find("web")->blocks[0].path, Path("b"));
}

TEST_F(HookTest, AForkedChildHasNoPartInTheConnection) {
  Program vmm = Start("web");
  vmm.Ask(Shared("ram", 2));
  ASSERT_TRUE(Registered("web", 1));
  EXPECT_EQ(vmm.Ask("fork 33554432"), "forked");
  EXPECT_EQ(vmm.Ask(Shared("more", 2)), "mapped 1");
  ASSERT_TRUE(Registered("web", 2));
  EXPECT_THAT(vmm.Stderr(), HasSubstr("RAM mapped by the child is not hooked"));
}

TEST_F(HookTest, AProgramThatDaemonizesFirstIsHookedUnderItsLastProcess) {
  Program vmm = Start("web");
  EXPECT_EQ(vmm.Ask("daemonize"), "daemonized");
  vmm.Ask(Shared("ram", 2));
  ASSERT_TRUE(Registered("web", 1));
  EXPECT_NE(registry_->Find("web")->pid(), vmm.pid());
  EXPECT_EQ(vmm.Wait(), 0);
  vmm.Send("quit");
  EXPECT_TRUE(Eventually([&] { return registry_->List().empty(); }));
}

// Fills the page that faults, in the given kind of block, and lets the program go on.
void ServeOneFault(const ArmedVm& armed, size_t block) {
  std::array<FaultEvent, 16> events;
  FaultEvent fault;
  ASSERT_TRUE(Eventually([&] {
    auto count = ReadFaultEvents(armed.userfault.get(), events);
    fault = events[0];
    return count.ok() && *count > 0;
  }));
  ASSERT_EQ(fault.kind, FaultEvent::Kind::kMissing);
  const uint64_t page = fault.address & ~uint64_t{4095};
  const VmBlock& where = armed.blocks[block];
  if (where.kind == wire::BlockKind::kSharedFile) {
    ASSERT_TRUE(AllocateRamFile(where.ram_file.get(), page - where.address, 4096).ok());
    EXPECT_EQ(ContinuePages(armed.userfault.get(), page, 4096).outcome, InstallOutcome::kInstalled);
  } else {
    EXPECT_EQ(ZeroPages(armed.userfault.get(), page, 4096).outcome, InstallOutcome::kInstalled);
  }
}

TEST_F(HookTest, PopulatedBlocksOfBothKindsAreEmptiedAndFault) {
  Program vmm = Start("web");
  vmm.Ask(Shared("ram", 8, "populate"));
  vmm.Ask(Anonymous(32, "populate"));
  ASSERT_TRUE(Registered("web", 2));
  auto armed = registry_->Arm("web", kSession, std::chrono::seconds(10), keepsake_);
  ASSERT_TRUE(armed.ok()) << armed.status();
  ASSERT_EQ(armed->blocks.size(), 2u);
  for (const size_t block : {size_t{0}, size_t{1}}) {
    vmm.Send("touch " + std::to_string(block) + " 20480");
    ServeOneFault(*armed, block);
    EXPECT_EQ(vmm.ReadLine(), "touched");
  }
}

TEST_F(HookTest, SurvivesADaemonThatRestartsAndTellsWhatIsArmed) {
  Program vmm = Start("web");
  vmm.Ask(Shared("ram", 2));
  ASSERT_TRUE(Registered("web", 1));
  ASSERT_TRUE(registry_->Arm("web", kSession, std::chrono::seconds(10), keepsake_).ok());
  StopDaemon();
  vmm.Send("touch 0 8192");  // waits: the hook's duplicate keeps missing pages missing
  StartDaemon();
  ASSERT_TRUE(Registered("web", 1)) << vmm.Stderr();
  auto record = registry_->Find("web");
  ASSERT_TRUE(record->arming.has_value());
  EXPECT_EQ(record->arming->session_id, kSession);
  EXPECT_THAT(record->arming->blocks, ::testing::ElementsAre(0));
  ArmedVm armed{std::move(record->arming->userfault), std::move(record->blocks)};
  ServeOneFault(armed, 0);
  EXPECT_EQ(vmm.ReadLine(), "touched");
}

TEST_F(HookTest, RunsOnWhenTheDaemonComesLater) {
  StopDaemon();
  Program vmm = Start("web");
  EXPECT_EQ(vmm.Ask(Shared("ram", 2)), "mapped 0");
  EXPECT_EQ(vmm.Ask("touch 0 0"), "touched");
  ASSERT_TRUE(Eventually([&] { return vmm.Stderr().find("no daemon yet") != std::string::npos; }));
  StartDaemon();
  ASSERT_TRUE(Registered("web", 1));
  EXPECT_TRUE(Eventually([&] {
    return vmm.Stderr().find("VM web is registered") != std::string::npos;
  }));
}

TEST_F(HookTest, TheSecondLiveVmOfANameIsRefusedAndRunsOn) {
  Program first = Start("web");
  first.Ask(Shared("a", 2));
  ASSERT_TRUE(Registered("web", 1));
  Program second({POSTCOPY_FAKE_VMM}, Hooked("web"), Path("stderr2"));
  second.Ask(Shared("b", 2));
  EXPECT_TRUE(Eventually([&] {
    return second.Stderr().find("is registered already, pid " + std::to_string(first.pid())) !=
           std::string::npos;
  })) << second.Stderr();
  EXPECT_EQ(second.Ask("touch 0 0"), "touched");
  EXPECT_EQ(registry_->Find("web")->pid(), first.pid());
}

TEST_F(HookTest, ANameThatCannotBeSentLeavesTheVmUnhooked) {
  Program vmm = Start("a/b");
  EXPECT_EQ(vmm.Ask(Shared("ram", 2)), "mapped 0");
  EXPECT_THAT(vmm.Stderr(), AllOf(HasSubstr("this VM runs unhooked"), Not(HasSubstr("daemon"))));
}

}  // namespace
}  // namespace postcopy
