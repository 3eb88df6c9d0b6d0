// The source's half of the switch against a VMM and a destination that fail where a test says so:
// whatever fails, the guest runs on one side at most, and the state says which.
#include "relocation/source_session.h"

#include <filesystem>

#include "gtest/gtest.h"
#include "tests/relocation/logged_warnings.h"
#include "tests/relocation/source_fixture.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

TEST_F(SourceSessionTest, SwitchMovesTheGuestAndCommitLetsTheSourceGo) {
  const auto downtime = PrepareAndSwitch();
  ASSERT_TRUE(downtime.ok()) << downtime.status();
  EXPECT_TRUE(downtime->has_value());
  EXPECT_TRUE(world_.destination_runs);
  EXPECT_EQ(state(), SessionState::kRunning);
  EXPECT_EQ(record(), RecordedOutcome::kHandedOver);
  // The process that plays the VMM is this test, which will not end: the quit is asked for only.
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  ASSERT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_EQ(state(), SessionState::kCommitted);
  EXPECT_EQ(record(), RecordedOutcome::kCommitted);
  EXPECT_THAT(world_.Calls(), testing::Contains("vmm quit"));
}

// A destination that got no answer says it again.
TEST_F(SourceSessionTest, ASecondArrivedIsAnsweredAndDoesNothingElse) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  ASSERT_TRUE(relocator_->OnArrived(session_, {}).ok());
  const std::vector<std::string> calls = world_.Calls();
  const LoggedWarnings warnings;
  EXPECT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_EQ(warnings.text(), "");
  EXPECT_EQ(world_.Calls(), calls);
  EXPECT_EQ(state(), SessionState::kCommitted);
}

TEST_F(SourceSessionTest, AnExceptionInPrepareLeavesNothingReserved) {
  world_.throws_at = "vmm prepare";
  EXPECT_THROW((void)relocator_->Prepare({"web1", "there:7700", "", false}), std::bad_alloc);
  EXPECT_THAT(store_->ReadAll("web1")->readable, testing::IsEmpty());
  world_.throws_at.clear();
  EXPECT_TRUE(PrepareAndSwitch().ok());
}

TEST_F(SourceSessionTest, AnExceptionInASwitchIsRolledBack) {
  for (const char* step : {"vmm hold", "vmm take"}) {
    world_.throws_at = step;
    const auto switched = PrepareAndSwitch();
    EXPECT_TRUE(absl::IsAborted(switched.status())) << step << ": " << switched.status();
    EXPECT_TRUE(world_.source_runs) << step;
    EXPECT_EQ(state(), SessionState::kRolledBack) << step;
  }
  world_.throws_at.clear();
  EXPECT_TRUE(PrepareAndSwitch().ok());
}

// By the stamps it would be a minute: the VMM's STOP (fakes.h) is 1 ms after the epoch.
TEST_F(SourceSessionTest, DowntimeIsOfTheSteadyClocksWhateverTheWallClocksSay) {
  const auto began = std::chrono::steady_clock::now();
  destination_.resumed = {.at_us = 60'000'000, .since = std::chrono::microseconds(1)};
  const auto downtime = PrepareAndSwitch();
  ASSERT_TRUE(downtime.ok()) << downtime.status();
  const std::chrono::duration<double, std::milli> whole = std::chrono::steady_clock::now() - began;
  EXPECT_GE(downtime->value(), 0);
  EXPECT_LT(downtime->value(), whole.count());
  EXPECT_EQ(relocator_->Stats("web1")->downtime_ms, *downtime);
}

TEST_F(SourceSessionTest, DowntimeIsNotKnownWhereTheDestinationDoesNotSayHowLongItHasRun) {
  destination_.resumed.since = std::nullopt;
  const auto downtime = PrepareAndSwitch();
  ASSERT_TRUE(downtime.ok()) << downtime.status();
  EXPECT_EQ(*downtime, std::nullopt);
  EXPECT_EQ(relocator_->Stats("web1")->downtime_ms, std::nullopt);
}

TEST_F(SourceSessionTest, DowntimeOfALostAnswerComesFromTheFigures) {
  destination_.lost_answers["hand-over"] = absl::UnavailableError("lost");
  Progress there;
  there.state = SessionState::kRunning;
  there.after_switch_ms = 0.001;
  destination_.figures = there;
  EXPECT_FALSE(PrepareAndSwitch().ok());
  destination_.lost_answers.clear();
  EXPECT_EQ(relocator_->Recover("web1")->owner, "destination");
  EXPECT_GT(relocator_->Stats("web1")->downtime_ms, 0.0);
}

TEST_F(SourceSessionTest, WhatWasHotPluggedSincePrepareIsFoundBeforeTheGuestStops) {
  world_.Show({{"device disk0: type", "virtio-blk-pci"}});
  const auto session = relocator_->Prepare({"web1", "there:7700", "", false});
  ASSERT_TRUE(session.ok()) << session.status();
  world_.Show({{"device disk0: type", "virtio-blk-pci"}, {"device late: type", "virtio-rng-pci"}});
  const auto downtime = relocator_->Switch(*session);
  EXPECT_THAT(std::string(downtime.status().message()),
              testing::HasSubstr("since it was prepared, device late: type"));
  EXPECT_TRUE(world_.source_runs);
  EXPECT_THAT(world_.Calls(), testing::Not(testing::Contains("vmm hold")));
  EXPECT_EQ(state(), SessionState::kRolledBack);
}

TEST_F(SourceSessionTest, CheckTellsWhatIsWrongAtBothEndsAndChangesNothing) {
  description_.blockers = {"job mirror0", "dirty bitmap b0"};
  destination_.findings = {"its CPU differs"};
  const auto findings = relocator_->Check({"web1", "there:7700", "", false});
  ASSERT_TRUE(findings.ok()) << findings.status();
  std::vector<std::string> told;
  for (const Finding& each : *findings) told.push_back(each.side + ": " + each.message);
  EXPECT_THAT(told, testing::ElementsAre("source: job mirror0", "source: dirty bitmap b0",
                                         "destination: its CPU differs"));
  EXPECT_THAT(world_.Calls(), testing::IsEmpty());
  EXPECT_FALSE(relocator_->Stats("web1").ok());
  EXPECT_THAT(store_->ReadAll("web1")->readable, testing::IsEmpty());
  EXPECT_EQ(relocator_->Check({"web9", "there:7700", "", false}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(SourceSessionTest, CheckOfAVmThatIsBeingRelocatedSaysSo) {
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  const auto findings = relocator_->Check({"web1", "there:7700", "", false});
  ASSERT_TRUE(findings.ok());
  ASSERT_EQ(findings->size(), 1u);
  EXPECT_THAT((*findings)[0].message, testing::HasSubstr("another relocation"));
}

TEST_F(SourceSessionTest, AVmWhoseMemoryHasNotArrivedCompletelyStaysHere) {
  const SessionId arrival{{std::byte{9}}};
  ASSERT_TRUE(store_->Write({arrival, SessionRole::kDestination, "web1", "from:7700", OwnershipMark::kOwner, true}).ok());
  RegisterVm(arrival);
  const auto session = relocator_->Prepare({"web1", "there:7700", "", false});
  EXPECT_TRUE(absl::IsFailedPrecondition(session.status())) << session.status();
  EXPECT_THAT(std::string(session.status().message()), HasSubstr("has not arrived completely"));
  EXPECT_EQ(store_->Read(arrival, SessionRole::kDestination)->mark, OwnershipMark::kOwner);  // its source may ask yet
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, AVmThatHasLostMemoryStaysHereAndItsRecordToo) {
  const SessionId arrival{{std::byte{9}}};
  ASSERT_TRUE(store_->Write({arrival, SessionRole::kDestination, "web1", "from:7700", OwnershipMark::kIncomplete, true}).ok());
  RegisterVm(arrival);
  StartDaemon(std::chrono::hours(1));
  const auto session = relocator_->Prepare({"web1", "there:7700", "", false});
  EXPECT_TRUE(absl::IsFailedPrecondition(session.status())) << session.status();
  EXPECT_EQ(store_->Read(arrival, SessionRole::kDestination)->mark, OwnershipMark::kIncomplete);
  EXPECT_EQ(*relocator_->OnQuery(arrival.ToString(), SessionRole::kDestination), RecordedOutcome::kCommitted);
}

TEST_F(SourceSessionTest, WhatWasLostThereIsNotKeptHere) {
  Progress there;
  there.state = SessionState::kFailed;
  there.error = "the source was lost";
  destination_.figures = there;
  ASSERT_TRUE(PrepareAndSwitch().ok());
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  destination_.record = RecordedOutcome::kCommitted;
  EXPECT_EQ(relocator_->Stats("web1")->error, "the source was lost");
  EXPECT_EQ(state(), SessionState::kFailed);
  EXPECT_EQ(record(), RecordedOutcome::kCommitted);
  EXPECT_THAT(world_.Calls(), testing::Contains("vmm quit"));
}

TEST_F(SourceSessionTest, TheSourceIsNotWhereASourceIsGivenUp) {
  EXPECT_TRUE(absl::IsNotFound(relocator_->SourceLost("web1", SourceLostAction::kKill).status()));
  ASSERT_TRUE(PrepareAndSwitch().ok());
  const auto refused = relocator_->SourceLost("web1", SourceLostAction::kKill);
  EXPECT_TRUE(absl::IsFailedPrecondition(refused.status())) << refused.status();
  EXPECT_EQ(refused.status().message(),
            "source-lost web1: this host is the source; ask the destination, there:7700");
}

TEST_F(SourceSessionTest, ArrivedIsRefusedBeforeTheSwitch) {
  const auto session = relocator_->Prepare({"web1", "there:7700", "", false});
  ASSERT_TRUE(session.ok()) << session.status();
  session_ = *session;
  EXPECT_TRUE(absl::IsFailedPrecondition(relocator_->OnArrived(session_, {})));
  EXPECT_THAT(world_.Calls(), testing::Not(testing::Contains("vmm quit")));
  EXPECT_EQ(record(), RecordedOutcome::kPrepared);
}

// Descriptors of this process that keep the guest's RAM file.
size_t CountRamFiles() {
  size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;  // the directory's own descriptor
    count += std::filesystem::read_symlink(entry, gone).string().starts_with("/memfd:ram");
  }
  return count;
}

TEST_F(SourceSessionTest, CommitLetsTheMemoryGo) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  EXPECT_EQ(CountRamFiles(), 2u);  // the registry's and the page source's
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  ASSERT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_EQ(CountRamFiles(), 1u);  // the registry's: as long as the VM is there
}

TEST_F(SourceSessionTest, AVmThatItsOperatorPausedStaysPaused) {
  world_.source_runs = false;
  world_.vmm_state = GuestState::kPaused;
  ASSERT_TRUE(PrepareAndSwitch().ok());
  EXPECT_FALSE(world_.destination_runs);
  EXPECT_FALSE(destination_.run);
}

// Everything that can fail before the record "handed over".
class RollBackTest : public SourceSessionTest, public testing::WithParamInterface<const char*> {};

INSTANTIATE_TEST_SUITE_P(Steps, RollBackTest,
                         testing::Values("destination open", "vmm hold", "vmm take",
                                         "destination load"));

TEST_P(RollBackTest, TheGuestGoesOnAtTheSourceAndTheDestinationNeverRunsIt) {
  failures_[GetParam()] = absl::UnavailableError("broken");
  const auto downtime = PrepareAndSwitch();
  EXPECT_EQ(downtime.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(downtime.status().message()), HasSubstr("broken"));
  EXPECT_TRUE(world_.source_runs);
  EXPECT_EQ(state(), SessionState::kRolledBack);
  EXPECT_EQ(destination_.record, RecordedOutcome::kNever);
  failures_.clear();
  destination_.record = RecordedOutcome::kNone;
  EXPECT_TRUE(PrepareAndSwitch().ok()) << "a second relocation works";
}

TEST_P(RollBackTest, AnUnreachableDestinationCannotKeepTheGuestStopped) {
  failures_[GetParam()] = absl::UnavailableError("broken");
  failures_["destination abort"] = absl::UnavailableError("no route");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(world_.source_runs);
  EXPECT_FALSE(world_.destination_runs);
}

TEST_F(SourceSessionTest, AVmmThatLivesAndCannotBeResumedIsTriedAgain) {
  failures_["vmm take"] = absl::UnavailableError("connection closed");
  failures_["vmm resume"] = absl::DeadlineExceededError("busy");
  const auto downtime = PrepareAndSwitch();
  EXPECT_EQ(downtime.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(downtime.status().message()), HasSubstr("could not be resumed yet (busy)"));
  EXPECT_FALSE(IsFinal(state()));
  EXPECT_FALSE(world_.source_runs);
  failures_.clear();
  EXPECT_EQ(relocator_->Recover("web1")->state, SessionState::kRolledBack);
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, AHandOverWhoseAnswerIsLostIsNotTakenBack) {
  destination_.lost_answers["hand-over"] = absl::DeadlineExceededError("no answer");
  const auto downtime = PrepareAndSwitch();
  EXPECT_EQ(downtime.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(downtime.status().message()), HasSubstr("recover"));
  EXPECT_FALSE(world_.source_runs);
  EXPECT_TRUE(world_.destination_runs);
  const auto report = relocator_->Recover("web1");
  ASSERT_TRUE(report.ok());
  EXPECT_EQ(report->owner, "destination");
  EXPECT_FALSE(world_.source_runs);
}

TEST_F(SourceSessionTest, ADestinationThatRecordedNeverGivesTheGuestBack) {
  failures_["destination hand-over"] = absl::AbortedError("its VMM had ended");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(destination_.record, RecordedOutcome::kNever);
  EXPECT_TRUE(world_.source_runs);
  EXPECT_EQ(state(), SessionState::kRolledBack);
}

TEST_F(SourceSessionTest, AfterTheHandOverAnUnreachableDestinationKeepsTheGuestStopped) {
  failures_["destination hand-over"] = absl::AbortedError("its VMM had ended");
  failures_["destination abort"] = absl::UnavailableError("no route");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kInternal);
  EXPECT_FALSE(world_.source_runs);
  failures_.clear();
  destination_.record = RecordedOutcome::kNever;
  EXPECT_EQ(relocator_->Recover("web1")->owner, "source");
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, ARecordThatCannotBeWrittenIsDecidedByTheDestination) {
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  session_ = relocator_->Stats("web1")->session;
  std::filesystem::remove_all(folder_ + "/state");
  EXPECT_EQ(relocator_->Switch(session_).status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(destination_.record, RecordedOutcome::kNever);
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, ARecordThatMayHaveBeenWrittenKeepsTheGuestStoppedUntilAsked) {
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  session_ = relocator_->Stats("web1")->session;
  std::filesystem::remove_all(folder_ + "/state");
  failures_["destination abort"] = absl::UnavailableError("no route");
  EXPECT_EQ(relocator_->Switch(session_).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(state(), SessionState::kUnknown);
  EXPECT_FALSE(world_.source_runs);
  EXPECT_EQ(relocator_->Recover("web1")->state, SessionState::kUnknown);
  failures_.clear();
  EXPECT_EQ(relocator_->Recover("web1")->owner, "source");
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, WhoOwnsTheGuestIsAskedForUntilItIsKnown) {
  StartDaemon(std::chrono::milliseconds(1));
  failures_["destination hand-over"] = absl::DeadlineExceededError("no answer");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(state(), SessionState::kHandedOver);
  EXPECT_FALSE(world_.source_runs);
  destination_.record = RecordedOutcome::kOwner;  // it has found out by itself
  EXPECT_TRUE(Comes(SessionState::kRunning));
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  destination_.record = RecordedOutcome::kCommitted;  // and its word that all has come was lost
  EXPECT_TRUE(Comes(SessionState::kCommitted));
  EXPECT_EQ(record(), RecordedOutcome::kCommitted);
  EXPECT_FALSE(world_.source_runs);
}

TEST_F(SourceSessionTest, AGuestThatTheDestinationWillNeverRunComesBackWithoutACommand) {
  StartDaemon(std::chrono::milliseconds(1));
  failures_["destination hand-over"] = absl::DeadlineExceededError("no answer");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kInternal);
  destination_.record = RecordedOutcome::kNever;
  EXPECT_TRUE(Comes(SessionState::kRolledBack));
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, ADestinationThatTakesItsWordBackNeverRanTheGuest) {
  StartDaemon(std::chrono::milliseconds(1));
  failures_["destination hand-over"] = absl::DeadlineExceededError("no answer");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kInternal);
  destination_.record = RecordedOutcome::kOwner;  // which its disk has not got
  EXPECT_TRUE(Comes(SessionState::kRunning));
  destination_.record = RecordedOutcome::kNever;
  EXPECT_TRUE(Comes(SessionState::kRolledBack));
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceSessionTest, ADestinationThatKnowsNothingOfTheSessionKeepsTheGuestStopped) {
  failures_["destination hand-over"] = absl::DeadlineExceededError("no answer");
  EXPECT_EQ(PrepareAndSwitch().status().code(), absl::StatusCode::kInternal);
  destination_.record = RecordedOutcome::kNone;
  const auto report = relocator_->Recover("web1");
  EXPECT_EQ(report->owner, "unknown");
  EXPECT_THAT(report->report, HasSubstr("has no record of session"));
  EXPECT_FALSE(world_.source_runs);
}

TEST_F(SourceSessionTest, ARestartedDaemonServesWhatItHasHandedOverUntilItHasArrived) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  destination_.reachable = false;
  StartDaemon(std::chrono::milliseconds(1));
  EXPECT_TRUE(Comes(SessionState::kHandedOver));
  EXPECT_FALSE(world_.source_runs);
  destination_.reachable = true;
  EXPECT_TRUE(Comes(SessionState::kRunning));
  EXPECT_EQ(relocator_->Stats("web1")->ram_bytes, kRamBytes);
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  ASSERT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_EQ(record(), RecordedOutcome::kCommitted);
  EXPECT_THAT(world_.Calls(), testing::Contains("vmm quit"));
}

TEST_F(SourceSessionTest, AMachineThatRunsAgainIsNotServedAsTheMemoryOfOneThatWasHandedOver) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  world_.vmm_state = GuestState::kRunning;  // somebody's doing
  StartDaemon(std::chrono::milliseconds(1));
  EXPECT_TRUE(absl::IsNotFound(relocator_->Stats("web1").status()));
  EXPECT_EQ(record(), RecordedOutcome::kHandedOver);
}

TEST_F(SourceSessionTest, CancelBeforeTheSwitchLeavesTheGuestAndAfterItIsRefused) {
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  EXPECT_TRUE(relocator_->Cancel("web1").ok());
  EXPECT_EQ(state(), SessionState::kCancelled);
  EXPECT_TRUE(world_.source_runs);
  EXPECT_THAT(world_.Calls(), testing::Not(testing::Contains("vmm hold")));

  destination_.record = RecordedOutcome::kNone;
  ASSERT_TRUE(PrepareAndSwitch().ok());
  const absl::Status refused = relocator_->Cancel("web1");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("too late"));
}

TEST_F(SourceSessionTest, ASecondRelocationOfTheSameVmIsRefused) {
  ASSERT_TRUE(relocator_->Prepare({"web1", "there:7700", "", false}).ok());
  const auto second = relocator_->Prepare({"web1", "elsewhere:7700", "", false});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another relocation"));
}

}  // namespace
}  // namespace postcopy
