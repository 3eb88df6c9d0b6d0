// What a daemon makes of a source that was handed over and whose VMM ended while no daemon ran: its memory
// is served from the RAM files where they can be had, and named as lost where not.
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "gtest/gtest.h"
#include "relocation/lost_sessions.h"
#include "tests/relocation/daemon_fixture.h"

namespace postcopy {
namespace {

constexpr uint64_t kBytes = 16 * 4096;

class LostVmmTest : public DaemonFixture {
 protected:
  LostVmmTest()
      : parts_(std::make_unique<DaemonParts>(Parts())),
        path_("/dev/shm/lost_vmm_test." + std::to_string(getpid())) {
    MakeFile();
    child_ = fork();
    if (child_ == 0) {
      for (;;) pause();
    }
    record_ = {{}, SessionRole::kSource, "web1", "there:7700", OwnershipMark::kHandedOver, true};
    record_.session.bytes[0] = std::byte{7};
    record_.vmm = *Identify(*Pidfd::Open(child_));
    const UniqueFd file(open(path_.c_str(), O_RDONLY));
    record_.memory = {{"ram", path_, *QueryFileId(file.get()), 0, kBytes}};
    destination_.record = RecordedOutcome::kOwner;
  }
  ~LostVmmTest() override {
    EndVmm();
    std::filesystem::remove(path_);
  }
  void MakeFile() {
    std::ofstream(path_) << "ram";
    std::filesystem::resize_file(path_, kBytes);
  }
  void EndVmm() {
    if (child_ == 0) return;
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
    child_ = 0;
  }
  void Write() { ASSERT_TRUE(store_->Write(record_).ok()); }
  // What is lost is said, and nothing is served.
  void ExpectLost(const std::string& words) {
    EndVmm();
    Write();
    LostSessions lost(*parts_);
    const auto settled = lost.Settle("web1");
    EXPECT_TRUE(settled.done);
    EXPECT_EQ(settled.source, nullptr);
    EXPECT_FALSE(parts_->page_server.Serves(record_.session));
    const auto report = lost.Recover("web1");
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->owner, "destination");
    EXPECT_THAT(report->report, testing::HasSubstr(words));
  }

  std::unique_ptr<DaemonParts> parts_;
  const std::string path_;
  pid_t child_ = 0;
  OwnershipRecord record_;
};

TEST_F(LostVmmTest, ItsMemoryIsServedFromItsFiles) {
  Write();
  LostSessions lost(*parts_);
  EXPECT_THAT(*lost.ToSettle(), testing::ElementsAre("web1"));
  EXPECT_FALSE(lost.Settle("web1").done) << "it lives, so its hook comes back";
  EndVmm();
  auto settled = lost.Settle("web1");
  ASSERT_NE(settled.source, nullptr);
  EXPECT_TRUE(parts_->page_server.Serves(record_.session));
  EXPECT_EQ(settled.source->destination(), "there:7700");
  // Whatever becomes of it, nothing is started here.
  EXPECT_FALSE(world_.source_runs && world_.destination_runs);
}

TEST_F(LostVmmTest, AHostOwesTheMemoryOfAVmmThatLivesBeforeItIsTakenUp) {
  Write();
  const auto owed = LostSessions(*parts_).Owed();
  ASSERT_EQ(owed.size(), 1u);
  EXPECT_EQ(owed[0].vm, "web1");
  EXPECT_EQ(owed[0].peer, "there:7700");
  EndVmm();
  EXPECT_TRUE(LostSessions(*parts_).Owed().empty());
}

TEST_F(LostVmmTest, AFileThatIsGoneIsNamed) {
  std::filesystem::remove(path_);
  ExpectLost(path_ + ", is lost: open " + path_ + ": No such file");
}

TEST_F(LostVmmTest, AnotherFileOfThatNameIsNotServed) {
  std::filesystem::rename(path_, path_ + ".old");
  MakeFile();
  ExpectLost("another file is there now");
  std::filesystem::remove(path_ + ".old");
}

TEST_F(LostVmmTest, AFileThatHasShrunkIsNotServed) {
  std::filesystem::resize_file(path_, kBytes - 4096);
  ExpectLost("another file is there now");
}

TEST_F(LostVmmTest, AnotherBootsFilesAreNotServed) {
  record_.vmm.boot_id = "another";
  ExpectLost("this host has restarted since");
}

}  // namespace
}  // namespace postcopy
