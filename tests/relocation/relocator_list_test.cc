// What a daemon tells of its VMs and sessions: the list, and the memory that other hosts still need.
#include "gtest/gtest.h"
#include "relocation/relocator.h"
#include "tests/relocation/source_fixture.h"

namespace postcopy {
namespace {

TEST_F(SourceSessionTest, AListTellsTheGuestsStateOverTheSessionsMonitor) {
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  ASSERT_EQ(relocator_->List().size(), 1u);
  EXPECT_EQ(relocator_->List()[0].guest_state, "running");
  ASSERT_TRUE(relocator_->Switch(relocator_->Stats("web1")->session).ok());
  EXPECT_EQ(relocator_->List()[0].guest_state, "in another state");
}

TEST_F(SourceSessionTest, AListShowsNoSessionOfAnEarlierVmmOfTheName) {
  const auto session = PrepareOfAnotherProcess();
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(relocator_->Cancel("web2").ok());
  const auto shown = [this] {
    for (const VmSummary& vm : relocator_->List()) {
      if (vm.name == "web2") return vm.in_session;
    }
    return false;
  };
  EXPECT_TRUE(shown());
  EndThatProcess();
  registry_.OnDisconnected(1);
  RegisterVm();
  EXPECT_FALSE(shown());
}

TEST_F(SourceSessionTest, MemoryIsOwedFromTheSwitchToTheCommit) {
  EXPECT_TRUE(relocator_->Owed().empty());
  ASSERT_TRUE(PrepareAndSwitch().ok());
  ASSERT_EQ(relocator_->Owed().size(), 1u);
  EXPECT_EQ(relocator_->Owed()[0].peer, "there:7700");
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  ASSERT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_TRUE(relocator_->Owed().empty());
}

TEST_F(SourceSessionTest, MemoryIsOwedWhileItIsNotKnownWhoOwnsTheVm) {
  destination_.failures["destination hand-over"] = absl::UnavailableError("no answer");
  EXPECT_FALSE(PrepareAndSwitch().ok());
  EXPECT_EQ(relocator_->Owed().size(), 1u);
}

}  // namespace
}  // namespace postcopy
