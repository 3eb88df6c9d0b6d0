#include "vmm/qemu_inspect.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

Json Child(const char* name, const char* type) {
  return Json{{"name", name}, {"type", std::string("child<") + type + ">"}};
}

// As QEMU 7.2 answers for a pc with one RAM file, a balloon and a NIC.
QemuAnswers RunningPc() {
  QemuAnswers answers;
  answers.version = Json::parse(R"({"qemu":{"micro":22,"minor":2,"major":7},"package":"x"})");
  answers.status = Json::parse(R"({"status":"running","singlestep":false,"running":true})");
  answers.migrate = Json::object();
  answers.memory_backends = Json::parse(
      R"([{"share":true,"reserve":true,"prealloc":false,"host-nodes":[],"size":268435456,
           "merge":true,"dump":true,"policy":"default","id":"ram"}])");
  answers.memory_size = Json::parse(R"({"base-memory":268435456,"plugged-memory":0})");
  answers.cpus = Json::array({{{"cpu-index", 0}}, {{"cpu-index", 1}}});
  answers.machine_type = "pc-i440fx-7.2-machine";
  answers.objects = Json::array(
      {{{"name", "type"}, {"type", "string"}}, Child("ram", "memory-backend-file")});
  answers.peripherals = Json::array(
      {{{"name", "type"}, {"type", "string"}}, Child("bal", "virtio-balloon-pci")});
  answers.anonymous_peripherals = Json::array({Child("device[0]", "virtio-net-pci")});
  answers.networks =
      "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n"
      " \\ n0: index=0,type=user,net=10.0.2.0,restrict=off\r\n";
  answers.mem_paths = {{"ram", "/dev/shm/a"}};
  return answers;
}

Json Status(const char* status) { return Json{{"status", status}}; }

TEST(QemuInspectTest, DescribesARunningMachine) {
  const VmmDescription vm = DescribeQemu(RunningPc());
  EXPECT_EQ(vm.version, "7.2.22");
  EXPECT_EQ(vm.machine_type, "pc-i440fx-7.2");
  EXPECT_EQ(vm.vcpus, 2);
  EXPECT_EQ(vm.ram_bytes, 268435456u);
  ASSERT_EQ(vm.ram.size(), 1u);
  EXPECT_EQ(vm.ram[0].id, "ram");
  EXPECT_EQ(vm.ram[0].type, "memory-backend-file");
  EXPECT_EQ(vm.ram[0].size_bytes, 268435456u);
  EXPECT_TRUE(vm.ram[0].shared);
  EXPECT_FALSE(vm.ram[0].prealloc);
  EXPECT_EQ(vm.ram[0].mem_path, "/dev/shm/a");
  EXPECT_THAT(vm.devices, ElementsAre("bal:virtio-balloon-pci", "device[0]:virtio-net-pci"));
  EXPECT_THAT(vm.blockers, IsEmpty());
  EXPECT_EQ(vm.state, GuestState::kRunning);
  EXPECT_EQ(vm.state_text, "running");
}

TEST(QemuInspectTest, RamWithoutABackendOfItsOwnHasNoPath) {
  QemuAnswers answers = RunningPc();
  answers.memory_backends = Json::parse(R"([{"share":false,"size":268435456,"id":"pc.ram"}])");
  answers.objects = Json::array({Child("pc.ram", "memory-backend-ram")});
  answers.mem_paths = {{"pc.ram", Json()}};
  const VmmDescription vm = DescribeQemu(answers);
  ASSERT_EQ(vm.ram.size(), 1u);
  EXPECT_EQ(vm.ram[0].type, "memory-backend-ram");
  EXPECT_FALSE(vm.ram[0].shared);
  EXPECT_EQ(vm.ram[0].mem_path, "");
  EXPECT_THAT(vm.blockers, IsEmpty());
}

TEST(QemuInspectTest, SharedRamWithoutANamedFileIsRefusedSinceQemuSendsIt) {
  QemuAnswers answers = RunningPc();
  answers.objects = Json::array({Child("ram", "memory-backend-memfd")});
  answers.mem_paths = {{"ram", Json()}};
  EXPECT_THAT(DescribeQemu(answers).blockers, IsEmpty());
  answers.version = Json::parse(R"({"qemu":{"micro":8,"minor":0,"major":10},"package":"x"})");
  EXPECT_THAT(DescribeQemu(answers).blockers,
              ElementsAre(AllOf(HasSubstr("RAM block ram is a memory-backend-memfd"),
                                HasSubstr("QEMU 10.0.8"), HasSubstr("memory-backend-file"))));
}

TEST(QemuInspectTest, AnswersOfAnotherFormGiveAnEmptyDescription) {
  QemuAnswers answers;
  answers.memory_backends = Json::array({1, "x", nullptr, Json::object()});
  answers.objects = "text";
  answers.peripherals = Json::array({nullptr, {{"name", 7}, {"type", "child<"}}});
  answers.networks = "type=\n: \n: type=\ntype=vhost-user";
  answers.cpus = 3;
  const VmmDescription vm = DescribeQemu(answers);
  EXPECT_EQ(vm.vcpus, 0);
  EXPECT_THAT(vm.devices, IsEmpty());
  EXPECT_EQ(vm.state, GuestState::kOther);
}

TEST(QemuInspectTest, GuestStateFromRunStateAndMigration) {
  const struct {
    const char* run;
    const char* migration;
    GuestState state;
  } cases[] = {
      {"running", "none", GuestState::kRunning},
      {"running", "active", GuestState::kRunning},
      {"running", "cancelled", GuestState::kRunning},
      {"paused", "none", GuestState::kPaused},
      {"paused", "completed", GuestState::kPaused},
      {"prelaunch", "none", GuestState::kPaused},
      {"inmigrate", "none", GuestState::kWaitsForIncoming},
      {"inmigrate", "setup", GuestState::kOther},
      {"inmigrate", "active", GuestState::kOther},
      {"finish-migrate", "pre-switchover", GuestState::kHeldAtSwitchover},
      {"finish-migrate", "device", GuestState::kOther},
      {"postmigrate", "completed", GuestState::kSent},
      {"postmigrate", "cancelled", GuestState::kPaused},
      {"postmigrate", "failed", GuestState::kPaused},
      {"shutdown", "none", GuestState::kOther},
      {"io-error", "none", GuestState::kOther},
      {"suspended", "none", GuestState::kOther},
  };
  for (const auto& entry : cases) {
    EXPECT_EQ(GuestStateOf(Status(entry.run), Status(entry.migration)), entry.state)
        << entry.run << ", " << entry.migration;
  }
  EXPECT_EQ(StateText(Status("inmigrate"), Json::object()), "inmigrate");
  EXPECT_EQ(StateText(Status("running"), Status("completed")), "running");
  EXPECT_EQ(StateText(Status("postmigrate"), Status("completed")),
            "postmigrate, migration completed");
  EXPECT_EQ(StateText(Status("finish-migrate"), Status("device")),
            "finish-migrate, migration device");
}

TEST(QemuInspectTest, WhatReachesRamFromOutsideIsRefusedByName) {
  QemuAnswers answers = RunningPc();
  answers.peripherals = Json::array(
      {Child("gpu", "vfio-pci"), Child("fs0", "vhost-user-fs-pci"), Child("ok", "virtio-blk-pci"),
       Child("sock", "vhost-vsock-pci")});
  answers.anonymous_peripherals = Json::array({Child("device[3]", "vhost-user-blk-pci")});
  answers.objects.push_back(Child("crypto0", "cryptodev-vhost-user"));
  EXPECT_THAT(
      DescribeQemu(answers).blockers,
      ElementsAre(StartsWith("device fs0 is vhost-user-fs-pci: its back end maps guest RAM in "
                             "another process; "),
                  StartsWith("device device[3] is vhost-user-blk-pci: "),
                  StartsWith("object crypto0 is cryptodev-vhost-user: "),
                  StartsWith("device gpu is vfio-pci: its hardware reaches guest RAM by DMA; ")));
}

TEST(QemuInspectTest, NetdevsThatReachRamFromOutsideAreRefusedByName) {
  QemuAnswers answers = RunningPc();
  answers.networks =
      "virtio-net-pci.0: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:12:34:56\r\n"
      " \\ net0: index=0,type=vhost-user,vhost-user0 to vhost-user.sock\r\n"
      "vdpa0: index=0,type=vhost-vdpa\r\n"
      "tap0: index=0,type=tap,ifname=tap0,script=no,downscript=no\r\n";
  EXPECT_THAT(DescribeQemu(answers).blockers,
              ElementsAre(StartsWith("netdev net0 is vhost-user: its back end maps guest RAM in "
                                     "another process; "),
                          StartsWith("netdev vdpa0 is vhost-vdpa: its hardware reaches")));
}

TEST(QemuInspectTest, QemusOwnReasonsAndARunningMigrationBlock) {
  QemuAnswers answers = RunningPc();
  answers.migrate = Json::parse(
      R"({"status":"active","blocked-reasons":["VFIO device doesn't support migration"]})");
  EXPECT_THAT(DescribeQemu(answers).blockers,
              ElementsAre("a migration of this machine is under way already (active)",
                          "QEMU refuses to migrate: VFIO device doesn't support migration"));
}

TEST(QemuInspectTest, StateThatCantBeMovedBlocks) {
  QemuAnswers answers = RunningPc();
  answers.status = Status("io-error");
  EXPECT_THAT(DescribeQemu(answers).blockers,
              ElementsAre(HasSubstr("in state io-error: only a running or a paused")));
  answers.status = Status("postmigrate");
  answers.migrate = Status("cancelled");
  EXPECT_THAT(DescribeQemu(answers).blockers, ElementsAre(HasSubstr("cont and stop it first")));
  answers.migrate = Status("completed");
  EXPECT_THAT(DescribeQemu(answers).blockers, ElementsAre(HasSubstr("cont and stop it first")));
}

TEST(QemuInspectTest, IncomingWithoutDashSBlocks) {
  QemuAnswers answers = RunningPc();
  answers.status = Status("inmigrate");
  EXPECT_THAT(DescribeQemu(answers).blockers, IsEmpty());  // the command line is not known
  answers.command_line = {"qemu", "-incoming", "defer"};
  EXPECT_THAT(DescribeQemu(answers).blockers, ElementsAre(HasSubstr("without -S")));
  answers.command_line = {"qemu", "--incoming", "defer", "--S"};
  EXPECT_THAT(DescribeQemu(answers).blockers, IsEmpty());
  answers.command_line = {"libvirtd"};
  EXPECT_THAT(DescribeQemu(answers).blockers, IsEmpty());
}

constexpr const char* kRamBlocks =
    "              Block Name    PSize              Offset               Used              Total\n"
    "            /objects/ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000\n"
    "    /rom@etc/acpi/tables    4 KiB  0x00000000100c0000 0x0000000000020000 0x0000000000200000\n"
    "                 pc.bios    4 KiB  0x0000000010000000 0x0000000000040000 0x0000000000040000\n";

TEST(QemuInspectTest, StreamedRamLimitIsAllButTheBackends) {
  VmmRamBackend ram;
  ram.id = "ram";
  EXPECT_EQ(StreamedRamLimit(kRamBlocks, {ram}).value(), 0x20000u + 0x40000u + (1u << 20));
  EXPECT_GT(StreamedRamLimit(kRamBlocks, {}).value(), 0x10000000u);
  EXPECT_FALSE(StreamedRamLimit("", {ram}).ok());
  EXPECT_FALSE(StreamedRamLimit("a b c d no-number f\n", {ram}).ok());
}

TEST(QemuInspectTest, BlocksThatAddUpToMoreThanThereIsAreRefused) {
  const std::string block = "a 4 KiB 0x0 0xffffffffffffffff 0x0\n";
  EXPECT_EQ(StreamedRamLimit(block, {}).status().code(), absl::StatusCode::kFailedPrecondition);
  VmmRamBackend ram;
  ram.id = "a";
  EXPECT_EQ(StreamedRamLimit(block, {ram}).value(), 1u << 20);
}

TEST(QemuInspectTest, RamInTheStreamIsFoundThoughItsPagesAreZero) {
  const Json small = {{"ram", {{"total", 794624}, {"transferred", 456408}}}};
  EXPECT_TRUE(CheckStreamedRam(small, 2 << 20).ok());
  const Json leaked = {{"ram", {{"total", 269230080}, {"transferred", 600000}}}};
  const auto status = CheckStreamedRam(leaked, 2 << 20);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("269230080 bytes"));
  EXPECT_FALSE(CheckStreamedRam(Json::object(), 2 << 20).ok());
}

}  // namespace
}  // namespace postcopy
