#include "vmm/machine_print.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace postcopy {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

Json Word(uint64_t leaf, const char* reg, uint64_t features) {
  return {{"cpuid-input-eax", leaf}, {"cpuid-register", reg}, {"features", features}};
}

// As QEMU 7.2 answers, shortened.
PrintAnswers Machine() {
  PrintAnswers answers;
  answers.qtree =
      "bus: pci.0\r\n  dev: virtio-blk-pci, id \"disk0\"\r\n    drive = \"a\"\r\n    addr = 04.0\r\n"
      "    rombar = 1 (0x1)\r\n    x-pcie-flr-init = true\r\n"
      "  dev: virtio-blk-pci, id \"disk1\"\r\n    drive = \"b\"\r\n    addr = 05.0\r\n";
  answers.ramblock_listing =
      "Block Name    PSize              Offset               Used              Total\r\n"
      "ram    4 KiB  0x0000000000000000 0x0000000008000000 0x0000000008000000\r\n"
      "/rom@etc/acpi/tables    4 KiB  0x0000000009100000 0x0000000000020000 0x0000000000200000\r\n"
      "0000:00:05.0/virtio-net-pci.rom    4 KiB  0x00 0x0000000000040000 0x0000000000040000\r\n";
  answers.machine = {{"smp", {{"sockets", 1}, {"cores", 2}}}, {"hpet", true}};
  answers.cpu = {{"type", "Nehalem-x86_64-cpu"},
                 {"vendor", "GenuineIntel"},
                 {"feature-words", Json::array({Word(1, "ECX", 0x98), Word(1, "EDX", 0x178)})}};
  answers.cpus = Json::array({{{"props", {{"socket-id", 0}, {"core-id", 0}, {"thread-id", 0}}}}});
  answers.memory_devices = Json::array(
      {{{"type", "dimm"}, {"data", {{"id", "d1"}, {"addr", 4294967296}, {"slot", 0}}}}});
  answers.kvm = {{"enabled", false}, {"present", true}};
  return answers;
}

std::vector<std::string> Differences(const PrintAnswers& a, const PrintAnswers& b,
                                     const char* at_b = "7.2.22") {
  return PrintDifferences(PrintOf(a), "7.2.22", PrintOf(b), at_b);
}

void Replace(std::string& text, const std::string& old, const std::string& now) {
  const size_t at = text.find(old);
  ASSERT_NE(at, std::string::npos) << old;
  text.replace(at, old.size(), now);
}

TEST(MachinePrintTest, EqualMachinesDoNotDiffer) {
  EXPECT_THAT(Differences(Machine(), Machine()), IsEmpty());
  EXPECT_THAT(PrintChanges(PrintOf(Machine()), PrintOf(Machine())), IsEmpty());
}

TEST(MachinePrintTest, DisksThatHaveChangedPlacesDiffer) {
  PrintAnswers swapped = Machine();
  Replace(swapped.qtree, "04.0", "tmp");
  Replace(swapped.qtree, "05.0", "04.0");
  Replace(swapped.qtree, "tmp", "05.0");
  EXPECT_THAT(Differences(Machine(), swapped),
              ElementsAre("device disk0: addr is 04.0 at the source and 05.0 at the destination",
                          "device disk1: addr is 05.0 at the source and 04.0 at the destination"));
}

Json Disk(const char* qdev, const char* drive, uint64_t bytes) {
  return {{"qdev", qdev}, {"device", drive}, {"inserted", {{"image", {{"virtual-size", bytes}}}}}};
}

TEST(MachinePrintTest, ImagesThatHaveChangedPlacesDifferByTheirSize) {
  PrintAnswers source = Machine();
  source.block = Json::array({Disk("/machine/peripheral/disk0/virtio-backend", "", 1 << 20),
                              Disk("disk1", "d1", 1 << 21),
                              Disk("/machine/peripheral-anon/device[1]", "none0", 1 << 22),
                              {{"device", "cd0"}, {"qdev", "cd0"}}});  // empty
  PrintAnswers destination = Machine();
  destination.block = Json::array({Disk("/machine/peripheral/disk1/virtio-backend", "none0", 1 << 20),
                                   Disk("/machine/peripheral/disk0/virtio-backend", "", 1 << 21),
                                   Disk("/machine/peripheral-anon/device[1]", "d1", 5),
                                   Disk("cd0", "", 1 << 20)});
  EXPECT_THAT(Differences(source, source), IsEmpty());
  EXPECT_THAT(Differences(source, destination),
              ElementsAre("disk disk0: size is 1048576 bytes at the source and 2097152 bytes at the "
                          "destination",
                          "disk disk1: size is 2097152 bytes at the source and 1048576 bytes at the "
                          "destination"));
  EXPECT_THAT(PrintChanges(PrintOf(source), PrintOf(destination)), SizeIs(2))
      << "resized; a medium may come and go";
}

TEST(MachinePrintTest, NamesOfHostResourcesAndInternalsAreNotCompared) {
  PrintAnswers other = Machine();
  Replace(other.qtree, "\"a\"", "\"elsewhere\"");
  Replace(other.qtree, "rombar = 1 (0x1)", "rombar = -1 (0xffffffff)");
  Replace(other.qtree, "x-pcie-flr-init = true", "x-pcie-flr-init = false");
  EXPECT_THAT(Differences(Machine(), other), IsEmpty());
}

TEST(MachinePrintTest, ACpuWithOtherFeaturesDiffersAndItsModelIsNamed) {
  PrintAnswers other = Machine();
  other.cpu["type"] = "qemu64-x86_64-cpu";
  EXPECT_THAT(Differences(Machine(), other), IsEmpty()) << "another name of equal features";
  other.cpu["feature-words"][0]["features"] = 0x18;
  EXPECT_THAT(Differences(Machine(), other),
              ElementsAre(AllOf(HasSubstr("CPU model is Nehalem"), HasSubstr("qemu64")),
                          "CPU features CPUID 0x1 ECX is 0x98 at the source and 0x18 at the "
                          "destination"));
}

TEST(MachinePrintTest, ANewerReleaseMayAddFeaturesButLackNone) {
  PrintAnswers more = Machine();
  more.cpu["feature-words"][0]["features"] = 0x99;
  EXPECT_THAT(Differences(Machine(), more, "10.0.8"), IsEmpty());
  EXPECT_THAT(Differences(more, Machine(), "10.0.8"), SizeIs(2));
  EXPECT_THAT(Differences(Machine(), more), SizeIs(2)) << "of one release they are equal";
}

TEST(MachinePrintTest, FeaturesThatFollowFromTheTopologyAreNotCompared) {
  PrintAnswers threads = Machine();
  threads.cpu["feature-words"][1]["features"] = 0x178 | 1u << 28;
  EXPECT_THAT(Differences(threads, Machine(), "10.0.8"), IsEmpty());
}

TEST(MachinePrintTest, TopologyMachineCpuAndMemoryDevicesAreCompared) {
  PrintAnswers other = Machine();
  other.machine["smp"]["sockets"] = 2;
  other.machine["hpet"] = false;
  other.cpu["vendor"] = "AuthenticAMD";
  other.memory_devices[0]["data"]["addr"] = 8589934592;
  other.kvm["enabled"] = true;
  EXPECT_THAT(Differences(Machine(), other),
              testing::UnorderedElementsAre(
                  "machine smp.sockets is 1 at the source and 2 at the destination",
                  "machine hpet is true at the source and false at the destination",
                  "CPU vendor is GenuineIntel at the source and AuthenticAMD at the destination",
                  "memory device d1: addr is 4294967296 at the source and 8589934592 at the "
                  "destination",
                  "accelerator is TCG at the source and KVM at the destination"));
}

TEST(MachinePrintTest, RomsAreComparedBySizeAndPresence) {
  PrintAnswers other = Machine();
  Replace(other.ramblock_listing, "0x0000000000040000 0x0000000000040000",
          "0x0000000000080000 0x0000000000080000");
  EXPECT_THAT(Differences(Machine(), other),
              ElementsAre("RAM block 0000:00:05.0/virtio-net-pci.rom is 262144 bytes at the source "
                          "and 524288 bytes at the destination"));
  Replace(other.ramblock_listing, "0000:00:05.0/virtio-net-pci.rom", "/rom@x");
  EXPECT_THAT(Differences(Machine(), other),
              ElementsAre(HasSubstr("virtio-net-pci.rom (262144 bytes) is at the source only")));
  EXPECT_THAT(Differences(other, Machine()), ElementsAre(HasSubstr("at the destination only")));
  EXPECT_THAT(Differences(other, Machine(), "10.0.8"), IsEmpty()) << "a newer release has more";
}

TEST(MachinePrintTest, WhatOnlyOneSideReportsIsNotCompared) {
  PrintAnswers other = Machine();
  Replace(other.qtree, "    addr = 04.0\r\n", "    addr = 04.0\r\n    new-in-10 = true\r\n");
  other.machine["fd-bootchk"] = true;
  EXPECT_THAT(Differences(Machine(), other, "10.0.8"), IsEmpty());
  EXPECT_THAT(PrintDifferences({}, "7.2.22", PrintOf(Machine()), "7.2.22"), IsEmpty());
  EXPECT_THAT(Differences(PrintAnswers{}, Machine()), IsEmpty());
}

TEST(MachinePrintTest, WhatHasComeGoneOrChangedOnOneHostIsTold) {
  PrintAnswers now = Machine();
  now.qtree += "  dev: virtio-net-pci, id \"hot\"\r\n    addr = 07.0\r\n    vectors = 4 (0x4)\r\n";
  now.cpus.push_back({{"props", {{"socket-id", 1}, {"core-id", 0}, {"thread-id", 0}}}});
  const auto changes = PrintChanges(PrintOf(Machine()), PrintOf(now));
  EXPECT_THAT(changes,
              ElementsAre("device hot: type (virtio-net-pci) has been added",
                          "vCPU socket-id 1 core-id 0 thread-id 0 (present) has been added"));
  EXPECT_THAT(PrintChanges(PrintOf(now), PrintOf(Machine())), Contains(HasSubstr("been removed")));
}

TEST(MachinePrintTest, APrintIsSortedBoundedAndPrintable) {
  PrintAnswers answers = Machine();
  answers.machine[std::string(1000, 'x')] = "a\x1b[31m" + std::string(1000, 'y');
  for (size_t i = 0; i < kMaxPrintProperties; ++i) answers.machine[absl::StrCat("p", i)] = 1;
  const MachinePrint print = PrintOf(answers);
  EXPECT_THAT(print, SizeIs(kMaxPrintProperties));
  for (size_t i = 0; i < print.size(); ++i) {
    EXPECT_LE(print[i].name.size(), kMaxPrintTextBytes);
    EXPECT_THAT(print[i].value, Not(HasSubstr("\x1b")));
    if (i > 0) {
      EXPECT_LT(print[i - 1].name, print[i].name);
    }
  }
}

TEST(MachinePrintTest, ManyDifferencesAreCounted) {
  PrintAnswers a = Machine();
  PrintAnswers b = Machine();
  for (int i = 0; i < 20; ++i) {
    a.machine[absl::StrCat("p", i)] = 1;
    b.machine[absl::StrCat("p", i)] = 2;
  }
  const auto differences = Differences(a, b);
  EXPECT_THAT(differences, SizeIs(13));
  EXPECT_EQ(differences.back(), "and 8 more differences");
}

}  // namespace
}  // namespace postcopy
