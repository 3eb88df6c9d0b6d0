#include "vmm/refusals.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <sstream>

#include "absl/strings/str_cat.h"

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

std::vector<std::string> Refused(const QemuAnswers& answers, bool waits = false) {
  std::vector<std::string> blockers;
  AddRefusals(answers, waits, blockers);
  return blockers;
}

Json Child(const char* name, const std::string& type) {
  return {{"name", name}, {"type", "child<" + type + ">"}};
}

TEST(RefusalsTest, AJobThatHasNotConcludedIsRefused) {
  for (const char* type : {"mirror", "backup", "commit", "stream", "snapshot-save"}) {
    for (const char* status : {"running", "ready", "paused", "standby", "pending", "waiting"}) {
      QemuAnswers answers;
      answers.jobs = Json::array({{{"id", "j0"}, {"type", type}, {"status", status}}});
      EXPECT_THAT(Refused(answers),
                  ElementsAre(StartsWith(absl::StrCat("job j0 (", type, ", ", status, "): "))));
      EXPECT_THAT(Refused(answers, /*waits=*/true), testing::SizeIs(1));
    }
  }
  QemuAnswers ended;
  ended.jobs = Json::array({{{"id", "j0"}, {"type", "backup"}, {"status", "concluded"}}});
  EXPECT_THAT(Refused(ended), IsEmpty());
}

TEST(RefusalsTest, AnExportIsRefusedAlsoIfItIsReadOnly) {
  QemuAnswers answers;
  answers.block_exports = Json::parse(
      R"([{"id":"e0","type":"nbd","node-name":"disk","shutting-down":false}])");
  EXPECT_THAT(Refused(answers), ElementsAre(StartsWith("block export e0 (nbd, node disk): its cli")));
}

TEST(RefusalsTest, ADirtyBitmapThatWouldBeLostIsRefusedAtTheSource) {
  QemuAnswers answers;
  answers.block_nodes = Json::parse(
      R"([{"node-name":"d0","dirty-bitmaps":[{"name":"b0","persistent":false},{"name":"b1",
           "persistent":true},{"persistent":false}]},{"node-name":"d1"}])");
  EXPECT_THAT(Refused(answers), ElementsAre(StartsWith("dirty bitmap b0 of node d0: ")));
  EXPECT_THAT(Refused(answers, /*waits=*/true), IsEmpty());
  answers.capabilities = Json::parse(R"([{"capability":"dirty-bitmaps","state":false}])");
  EXPECT_THAT(Refused(answers), testing::SizeIs(1));
  answers.capabilities[0]["state"] = true;
  EXPECT_THAT(Refused(answers), IsEmpty());
}

TEST(RefusalsTest, ATemporaryOverlayIsRefused) {
  QemuAnswers answers;
  answers.block_nodes = Json::parse(
      R"([{"drv":"file","file":"/var/tmp/vl.aZ09bc"},{"drv":"file","file":"/images/vl.disk.raw"},
          {"drv":"qcow2","file":"/var/tmp/vl.aZ09bc"}])");
  EXPECT_THAT(Refused(answers), ElementsAre(StartsWith("temporary overlay /var/tmp/vl.aZ09bc: ")));
}

TEST(RefusalsTest, DumpReplayAndColoAreRefused) {
  QemuAnswers answers;
  answers.dump = {{"status", "active"}};
  answers.replay = {{"mode", "record"}};
  answers.colo = {{"mode", "primary"}};
  EXPECT_THAT(Refused(answers), ElementsAre(StartsWith("COLO, primary: "),
                                            StartsWith("dump-guest-memory: "),
                                            StartsWith("-icount rr=record: ")));
  answers.dump = {{"status", "completed"}};
  answers.replay = answers.colo = {{"mode", "none"}};
  EXPECT_THAT(Refused(answers), IsEmpty());
}

TEST(RefusalsTest, LockedMemoryIsRefusedAtTheDestination) {
  QemuAnswers answers;
  answers.memory_size = {{"base-memory", 268435456}};
  answers.locked_bytes = 400u << 20;
  EXPECT_THAT(Refused(answers, /*waits=*/true),
              ElementsAre(StartsWith("QEMU's memory is locked (400 MiB, VmLck): ")));
  EXPECT_THAT(Refused(answers), IsEmpty());
  answers.locked_bytes = 1u << 20;  // a library's keys
  EXPECT_THAT(Refused(answers, /*waits=*/true), IsEmpty());
}

TEST(RefusalsTest, EveryTypeOfTheTableIsRefusedAsDeviceObjectAndBackend) {
  for (const Refusal& row : Refusals()) {
    std::istringstream parts(row.type_parts);
    for (std::string part; parts >> part;) {
      QemuAnswers answers;
      answers.peripherals = Json::array({Child("d", part + "-pci")});
      answers.anonymous_peripherals = Json::array({Child("device[0]", part)});
      answers.objects = Json::array({Child("o", part)});
      answers.networks = "n0: index=0,type=" + part + ",x=y\r\n";
      EXPECT_THAT(Refused(answers), testing::SizeIs(4)) << part;
      EXPECT_THAT(Refused(answers), testing::Each(HasSubstr(row.why))) << part;
    }
  }
}

TEST(RefusalsTest, AQemuThatAnswersNothingIsNotRefused) {
  EXPECT_THAT(Refused(QemuAnswers{}), IsEmpty());
  EXPECT_THAT(Refused(QemuAnswers{}, /*waits=*/true), IsEmpty());
}

TEST(RefusalsTest, TheOperationsManualHasEveryRow) {
  std::ifstream file(POSTCOPY_OPERATIONS);
  const std::string manual((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  ASSERT_THAT(manual, HasSubstr("# Operating it"));
  for (const Refusal& row : Refusals()) {
    const std::string line = absl::StrCat("| ", row.when, " | ", std::string(EndName(row.at)), " | ",
                                          row.why, " | ", row.instead, " |\n");
    EXPECT_NE(manual.find(line), std::string::npos) << "docs/operations.md lacks: " << line;
  }
}

}  // namespace
}  // namespace postcopy
