// A VM that was handed over, and whose destination is gone for good before it ran there: an operator takes
// it back.
#include <filesystem>

#include "gmock/gmock.h"
#include "tests/relocation/source_fixture.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

class DestinationLossTest : public SourceSessionTest {
 protected:
  // "Handed over" is recorded here, and the destination is unreachable.
  void LoseDestination(absl::Status cause = absl::UnavailableError("no route")) {
    for (const char* call : {"hand-over", "query", "abort"}) {
      failures_[std::string("destination ") + call] = cause;
    }
    EXPECT_TRUE(absl::IsInternal(PrepareAndSwitch().status()));
    EXPECT_EQ(state(), SessionState::kHandedOver);
  }
  void ExpectRefused(const std::string& words) {
    const auto taken = relocator_->DestinationLost("web1");
    EXPECT_TRUE(absl::IsFailedPrecondition(taken.status())) << taken.status();
    EXPECT_THAT(std::string(taken.status().message()), HasSubstr(words));
  }
  void ExpectTakenBack() {
    const auto taken = relocator_->DestinationLost("web1");
    ASSERT_TRUE(taken.ok()) << taken.status();
    EXPECT_THAT(*taken, HasSubstr("goes on at the source: there:7700 was given up by an operator"));
    EXPECT_TRUE(world_.source_runs);
    EXPECT_FALSE(registry_.Find("web1")->fenced_for.has_value());
    EXPECT_EQ(state(), SessionState::kRolledBack);
    EXPECT_EQ(record(), RecordedOutcome::kRolledBack);
  }
};

TEST_F(DestinationLossTest, TheVmGoesOnHere) {
  LoseDestination();
  EXPECT_THAT(relocator_->Recover("web1")->report, HasSubstr("postcopyctl destination-lost web1 --resume"));
  ExpectTakenBack();
  ExpectRefused("it is known who owns it, the session is rolled-back");
  failures_.clear();
  EXPECT_TRUE(PrepareAndSwitch().ok()) << "it can be relocated again";
}

TEST_F(DestinationLossTest, ADestinationThatDoesNotAnswerInTimeIsOutOfReachToo) {
  LoseDestination(absl::DeadlineExceededError("no answer in time"));
  ExpectTakenBack();
}

TEST_F(DestinationLossTest, TheNextDaemonCanTakeItBackToo) {
  LoseDestination();
  const auto fenced = registry_.Find("web1")->fenced_for;
  StartDaemon(std::chrono::hours(1));
  RegisterVm(std::nullopt, getpid(), wire::kAgentProtocolVersion, fenced);
  ASSERT_TRUE(Comes(SessionState::kHandedOver));
  ExpectTakenBack();
}

TEST_F(DestinationLossTest, ItIsRecordedBeforeTheGuestRuns) {
  LoseDestination();
  std::filesystem::rename(folder_ + "/state", folder_ + "/away");
  const auto refused = relocator_->DestinationLost("web1");
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("it stays stopped here: "));
  EXPECT_FALSE(world_.source_runs);
  EXPECT_EQ(state(), SessionState::kHandedOver);
  std::filesystem::rename(folder_ + "/away", folder_ + "/state");
  ExpectTakenBack();
}

TEST_F(DestinationLossTest, AGuestThatCannotBeResumedYetIsTriedAgain) {
  LoseDestination();
  failures_["vmm resume"] = absl::UnavailableError("the monitor is busy");
  const auto refused = relocator_->DestinationLost("web1");
  EXPECT_TRUE(absl::IsInternal(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("it is tried again"));
  failures_.erase("vmm resume");
  EXPECT_EQ(relocator_->Recover("web1")->owner, "source");
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(DestinationLossTest, RefusedWhileTheDestinationAnswers) {
  LoseDestination();
  failures_.erase("destination query");
  ExpectRefused("there:7700 is not out of reach");
  failures_["destination query"] = absl::InternalError("it answers nonsense");
  ExpectRefused("there:7700 is not out of reach");
  EXPECT_FALSE(world_.source_runs);
}

TEST_F(DestinationLossTest, RefusedOnceItHasRunThere) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  destination_.reachable = false;
  ExpectRefused("there:7700 has run it");
  EXPECT_FALSE(world_.source_runs);
}

TEST_F(DestinationLossTest, AnotherDaemonKnowsToThatItHasRunThere) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  const auto fenced = registry_.Find("web1")->fenced_for;
  destination_.reachable = false;
  StartDaemon(std::chrono::hours(1));
  RegisterVm(std::nullopt, getpid(), wire::kAgentProtocolVersion, fenced);
  ASSERT_TRUE(Comes(SessionState::kHandedOver));
  ExpectRefused("there:7700 has run it");
}

TEST_F(DestinationLossTest, RefusedWhileTheDestinationFetchesMemory) {
  LoseDestination();
  const SessionId session = *SessionId::Parse(session_);
  ScriptedLane lane(*ConnectTcp(page_server_->addresses()[0], std::chrono::seconds(5)));
  lane.Send(wire::EncodeHello({1, wire::Lane::kUrgent, session}));
  ASSERT_EQ(lane.Read().type(), wire::PageFrame::kWelcome);
  ExpectRefused("there:7700 does not answer at its control address, but fetches memory from here");
  lane.Close();
  for (int i = 0; i < 2000 && page_server_->HasLanes(session); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ExpectTakenBack();
}

TEST_F(DestinationLossTest, RefusedWhereItIsHeardOfMeanwhileThatItRunsThere) {
  LoseDestination();
  world_.on_call = [&](const std::string& call) {
    if (call != "destination query") return;
    Progress there;
    there.state = SessionState::kRunning;
    destination_.figures = there;
    (void)relocator_->Stats("web1");
  };
  ExpectRefused("there:7700 has just said that the VM runs there");
  EXPECT_FALSE(world_.source_runs);
  EXPECT_TRUE(store_->ReadAll("web1")->readable.back().ran_there);
}

TEST_F(DestinationLossTest, AGuestThatIsResumedOverAnotherConnectionHasItsSettings) {
  description_.emptied_at_end = {"mem0"};
  LoseDestination();
  failures_["vmm resume"] = absl::UnavailableError("the connection has ended");
  EXPECT_FALSE(relocator_->DestinationLost("web1").ok());
  EXPECT_THAT(world_.Calls(), testing::Not(testing::Contains("vmm adopt mem0")));
  failures_.erase("vmm resume");
  EXPECT_EQ(relocator_->Recover("web1")->owner, "source");
  EXPECT_THAT(world_.Calls(), testing::Contains("vmm adopt mem0"));
}

TEST_F(DestinationLossTest, WhatIsTakenBackIsNotEndedByAWordThatCameLate) {
  LoseDestination();
  world_.on_call = [&](const std::string& call) {
    if (call != "hook unfence") return;
    EXPECT_FALSE(relocator_->OnArrived(session_, {}).ok()) << "while it is being taken back";
  };
  ExpectTakenBack();
  EXPECT_FALSE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_THAT(world_.Calls(), testing::Not(testing::Contains("vmm quit")));
}

TEST_F(DestinationLossTest, ADaemonThatEndsBeforeTheGuestCouldBeResumedHasASuccessorThatDoes) {
  LoseDestination();
  failures_["vmm resume"] = absl::UnavailableError("the monitor is busy");
  EXPECT_FALSE(relocator_->DestinationLost("web1").ok());
  EXPECT_FALSE(registry_.Find("web1")->fenced_for.has_value()) << "the fence was lifted before";
  failures_.erase("vmm resume");
  StartDaemon(std::chrono::milliseconds(1));
  for (int i = 0; i < 2000 && !world_.source_runs; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(DestinationLossTest, RefusedWhereNothingIsInDoubt) {
  EXPECT_TRUE(absl::IsNotFound(relocator_->DestinationLost("web1").status()));
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  ExpectRefused("the session is prepared");
}

}  // namespace
}  // namespace postcopy
