#include "vmm/qemu_ram.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Json Object(const char* name, const char* type) {
  return Json{{"name", name}, {"type", std::string("child<") + type + ">"}};
}

// As QEMU 7.2 answers for `-machine pc,nvdimm=on` with two NUMA nodes, a dimm, an nvdimm, an
// ivshmem-plain and one backend that nothing uses.
QemuAnswers EveryUse() {
  QemuAnswers answers;
  answers.memory_backends = Json::array();
  answers.objects = Json::array();
  for (const char* id : {"unused", "ram1", "shm", "nv", "dimm", "ram0"}) {
    answers.memory_backends.push_back({{"id", id}, {"size", 67108864}, {"share", true}});
    answers.objects.push_back(Object(id, "memory-backend-file"));
    answers.mem_paths.emplace(id, std::string("/dev/shm/") + id);
  }
  answers.machine_memory = "";
  answers.memory_users = {{"device[0]", "ivshmem-plain", "shm"},
                          {"d1", "pc-dimm", "dimm"},
                          {"n1", "nvdimm", "nv"}};
  answers.ramblock_listing =
      "              Block Name    PSize              Offset               Used\n"
      "                    ram0    4 KiB  0x0000000000000000 0x0000000004000000\n"
      "                    ram1    4 KiB  0x0000000004000000 0x0000000004000000\n"
      "        0000:00:02.0/shm    4 KiB  0x0000000008000000 0x0000000004000000\n"
      "                    dimm    4 KiB  0x000000000c000000 0x0000000004000000\n"
      "                            4 KiB  0x0000000010000000 0x0000000004000000\n"
      "                      nv    4 KiB  0x0000000014000000 0x0000000004000000\n";
  return answers;
}

std::vector<std::string> Ids(const QemuAnswers& answers) {
  std::vector<std::string> blockers;
  std::vector<std::string> ids;
  for (const VmmRamBackend& backend : GuestRamOf(answers, blockers)) ids.push_back(backend.id);
  return ids;
}

std::vector<std::string> Blockers(const QemuAnswers& answers) {
  std::vector<std::string> blockers;
  (void)GuestRamOf(answers, blockers);
  return blockers;
}

TEST(QemuRamTest, OnlyWhatTheMachineUsesIsItsRam) {
  EXPECT_THAT(Ids(EveryUse()), ElementsAre("ram1", "dimm", "ram0"));
}

TEST(QemuRamTest, MemoryOfAnotherKindOfDeviceIsRefusedByName) {
  EXPECT_THAT(Blockers(EveryUse()),
              ElementsAre(AllOf(HasSubstr("memory backend shm (memory-backend-file)"),
                                HasSubstr("device device[0] (ivshmem-plain)")),
                          AllOf(HasSubstr("memory backend nv"), HasSubstr("n1 (nvdimm)"))));
}

TEST(QemuRamTest, EveryDeviceButDimmsAndVirtioMemIsAnotherKind) {
  for (const char* type : {"ivshmem-plain", "nvdimm", "virtio-pmem-pci", "cxl-type3",
                           "a-device-that-comes-with-qemu-11"}) {
    QemuAnswers answers = EveryUse();
    answers.memory_users = {{"x", type, "ram0"}};
    EXPECT_THAT(Blockers(answers), ElementsAre(HasSubstr(type)));
    EXPECT_THAT(Ids(answers), testing::Not(testing::Contains("ram0"))) << type;
  }
  for (const char* type : {"pc-dimm", "virtio-mem-pci", "virtio-mem"}) {
    QemuAnswers answers = EveryUse();
    answers.memory_users = {{"x", type, "ram0"}};
    EXPECT_THAT(Blockers(answers), IsEmpty());
    EXPECT_THAT(Ids(answers), testing::Contains("ram0")) << type;
  }
}

TEST(QemuRamTest, EnclaveMemoryOfTheMachineIsRefused) {
  QemuAnswers answers = EveryUse();
  answers.memory_users.clear();
  answers.memory_backends = Json::array({{{"id", "epc"}, {"size", 4096}}});
  answers.objects = Json::array({Object("epc", "memory-backend-epc")});
  EXPECT_THAT(Blockers(answers), ElementsAre(HasSubstr("epc (memory-backend-epc)")));
  EXPECT_THAT(Ids(answers), IsEmpty());
}

TEST(QemuRamTest, TheMachinesBackendIsKnownByIdOrByPath) {
  for (const char* machine : {"unused", "/objects/unused"}) {
    QemuAnswers answers = EveryUse();
    answers.machine_memory = machine;
    EXPECT_THAT(Ids(answers), ElementsAre("unused", "ram1", "dimm", "ram0"));
  }
}

TEST(QemuRamTest, WithoutTheListOfBlocksABackendCountsAsUsed) {
  QemuAnswers answers = EveryUse();
  answers.ramblock_listing.clear();
  EXPECT_THAT(Ids(answers), ElementsAre("unused", "ram1", "dimm", "ram0"));
}

TEST(QemuRamTest, OlderMachinesNameTheBlockByItsPath) {
  QemuAnswers answers = EveryUse();
  answers.ramblock_listing = "/objects/ram0 4 KiB 0x0 0x4000000\r\n/objects/ram1 4 KiB 0x0 0x4\r\n";
  EXPECT_THAT(Ids(answers), ElementsAre("ram1", "dimm", "ram0"));
}

}  // namespace
}  // namespace postcopy
