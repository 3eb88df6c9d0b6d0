// What a daemon makes of records that an earlier one has left: only VMMs that are in the middle of the
// recorded session are touched, and nothing that may run elsewhere is started.
#include "relocation/lost_sessions.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "gtest/gtest.h"
#include "tests/relocation/daemon_fixture.h"

namespace postcopy {
namespace {

// Of the VMM: a process that waits to be killed.
class Sleeper {
 public:
  Sleeper() : pid_(fork()) {
    if (pid_ == 0) {
      for (;;) pause();
    }
  }
  ~Sleeper() { End(); }
  void End() {
    if (pid_ == 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

class LostSessionsTest : public DaemonFixture {
 protected:
  LostSessionsTest() : parts_(std::make_unique<DaemonParts>(Parts())) {
    session_.bytes[0] = std::byte{7};
  }

  void Record(OwnershipMark mark, bool run = true) {
    const bool source = mark == OwnershipMark::kPrepared || mark == OwnershipMark::kHandedOver ||
                        mark == OwnershipMark::kRolledBack;
    Record(source ? SessionRole::kSource : SessionRole::kDestination, mark, run);
  }
  void Record(SessionRole role, OwnershipMark mark, bool run = true) {
    role_ = role;
    ASSERT_TRUE(store_->Write({session_, role, "web1", "there:7700", mark, run}).ok());
  }
  // What is recorded now in the role of the last Record().
  OwnershipMark mark() { return store_->Read(session_, role_)->mark; }

  void Register(bool armed) {
    VmRegistry::Registration registration;
    registration.message.vm_name = "web1";
    registration.message.qmp_path = "/qmp";
    if (armed) {
      registration.message.armed_session = session_;
      registration.userfault = UniqueFd(dup(0));
      registration.keepsake = UniqueFd(dup(0));
    }
    registration.process = std::move(*Pidfd::Open(vmm_.pid()));
    ASSERT_TRUE(registry_.Register(1, std::move(registration)).ok());
  }

  Sleeper vmm_;
  std::unique_ptr<DaemonParts> parts_;
  SessionId session_{};
  SessionRole role_ = SessionRole::kSource;
};

TEST_F(LostSessionsTest, ASourceThatHadStoppedGoesOn) {
  for (const GuestState state : {GuestState::kHeldAtSwitchover, GuestState::kSent,
                                 GuestState::kOther}) {
    Record(OwnershipMark::kPrepared);
    Register(false);
    world_.source_runs = false;
    world_.vmm_state = state;
    EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
    EXPECT_TRUE(world_.source_runs);
    EXPECT_EQ(mark(), OwnershipMark::kRolledBack);
  }
}

TEST_F(LostSessionsTest, ASourceThatWasPausedStaysSo) {
  Record(OwnershipMark::kPrepared, /*run=*/false);
  Register(false);
  world_.source_runs = false;
  world_.vmm_state = GuestState::kSent;
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_FALSE(world_.source_runs);
  EXPECT_EQ(world_.vmm_state, GuestState::kPaused);
}

TEST_F(LostSessionsTest, AVmmThatIsNotInTheMiddleOfItIsLeftAlone) {
  for (const GuestState state : {GuestState::kRunning, GuestState::kPaused,
                                 GuestState::kWaitsForIncoming}) {
    OwnershipRecord record{session_, role_, "web1", "there:7700", OwnershipMark::kPrepared, true};
    record.vmm = *Identify(*Pidfd::Open(vmm_.pid()));
    ASSERT_TRUE(store_->Write(record).ok());
    Register(false);
    world_.vmm_state = state;
    EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
    EXPECT_THAT(world_.Calls(), testing::Each(testing::AnyOf("destination abort", "vmm end settings")));
    EXPECT_EQ(mark(), OwnershipMark::kRolledBack);
  }
  EXPECT_EQ(std::ranges::count(world_.Calls(), "vmm end settings"), 2)
      << "what an earlier daemon may have set before the stop";
}

TEST_F(LostSessionsTest, AVmmThatWasToEmptyItsMemoryAtItsEndIsToDoSoAgain) {
  for (const GuestState state : {GuestState::kRunning, GuestState::kSent}) {
    OwnershipRecord record{session_, role_, "web1", "there:7700", OwnershipMark::kPrepared, true};
    record.vmm = *Identify(*Pidfd::Open(vmm_.pid()));
    record.emptied_at_end = {"mem0"};
    ASSERT_TRUE(store_->Write(record).ok());
    Register(false);
    world_.vmm_state = state;
    world_.empties_memory = true;
    EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
    EXPECT_THAT(world_.Calls(), testing::IsSupersetOf({"vmm adopt mem0", state == GuestState::kRunning
                                                                             ? "vmm restore"
                                                                             : "vmm resume"}));
  }
}

TEST_F(LostSessionsTest, OneThatWasRolledBackAndNotResumedIsResumed) {
  for (const bool to_resume : {true, false}) {
    OwnershipRecord record{session_, role_, "web1", "there:7700", OwnershipMark::kRolledBack, true};
    record.vmm = *Identify(*Pidfd::Open(vmm_.pid()));
    record.to_resume = to_resume;
    ASSERT_TRUE(store_->Write(record).ok());
    Register(false);
    world_.source_runs = false;
    world_.vmm_state = GuestState::kSent;
    EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
    EXPECT_EQ(world_.source_runs, to_resume) << "or somebody else's migration has stopped it";
    EXPECT_FALSE(store_->Read(session_, role_)->to_resume);
  }
}

TEST_F(LostSessionsTest, ASourceWhoseDestinationOwnsTheVmStaysStopped) {
  Record(OwnershipMark::kPrepared);
  Register(false);
  world_.source_runs = false;
  world_.vmm_state = GuestState::kSent;
  destination_.record = RecordedOutcome::kOwner;
  EXPECT_FALSE(LostSessions(*parts_).Settle("web1").done);  // this VMM has no RAM to serve
  EXPECT_FALSE(world_.source_runs);
  EXPECT_EQ(mark(), OwnershipMark::kHandedOver);
}

TEST_F(LostSessionsTest, ASourceWhoseDestinationCannotBeReachedGoesOn) {
  Record(OwnershipMark::kPrepared);
  Register(false);
  world_.source_runs = false;
  world_.vmm_state = GuestState::kSent;
  failures_["destination abort"] = absl::DeadlineExceededError("cut");
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(LostSessionsTest, WhatWasHandedOverIsNeverResumed) {
  for (const OwnershipMark recorded : {OwnershipMark::kHandedOver, OwnershipMark::kCommitted}) {
    Record(SessionRole::kSource, recorded);
    Register(false);
    world_.source_runs = false;
    world_.vmm_state = GuestState::kSent;
    LostSessions(*parts_).Settle("web1");
    EXPECT_FALSE(world_.source_runs);
    EXPECT_EQ(mark(), recorded);
  }
}

TEST_F(LostSessionsTest, WhatHasArrivedIsToldToTheSourceUntilItKnows) {
  Record(OwnershipMark::kArrived);
  peers_.source_record = absl::UnavailableError("cut");
  EXPECT_FALSE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_EQ(mark(), OwnershipMark::kArrived);
  EXPECT_THAT(*LostSessions(*parts_).ToSettle(), testing::ElementsAre("web1"));
  peers_.source_record = RecordedOutcome::kHandedOver;
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_EQ(mark(), OwnershipMark::kCommitted);
  EXPECT_THAT(*LostSessions(*parts_).ToSettle(), testing::IsEmpty());
}

TEST_F(LostSessionsTest, AnotherVmmOfTheNameIsNotTheVmThatWasArriving) {
  Record(OwnershipMark::kOwner);
  Register(false);
  const auto settled = LostSessions(*parts_).Settle("web1");
  EXPECT_TRUE(settled.done);
  EXPECT_EQ(mark(), OwnershipMark::kOwner) << "the source would let its memory go";
}

TEST_F(LostSessionsTest, AVmThatEndedWhileNoDaemonRanIsReportedAsACrash) {
  LostSessions lost(*parts_);
  Sleeper other;
  OwnershipRecord owner{session_, SessionRole::kDestination, "web1", "there:7700", OwnershipMark::kOwner, true, false, *Identify(*Pidfd::Open(other.pid()))};
  ASSERT_TRUE(store_->Write(owner).ok());
  EXPECT_EQ(lost.HandOver(session_.ToString()).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_FALSE(lost.Figures(session_.ToString()).has_value());
  other.End();
  EXPECT_EQ(lost.HandOver(session_.ToString()).status().code(), absl::StatusCode::kDataLoss);
  const auto figures = lost.Figures(session_.ToString());
  ASSERT_TRUE(figures.has_value());
  EXPECT_EQ(figures->state, SessionState::kFailed);
  EXPECT_THAT(figures->error, testing::HasSubstr("ended while its memory was arriving"));
}

TEST_F(LostSessionsTest, ASourceWhoseGuestNobodyElseWillRunGoesOn) {
  for (const GuestState state : {GuestState::kSent, GuestState::kRunning}) {
    Record(OwnershipMark::kHandedOver);
    Register(false);
    world_.source_runs = state == GuestState::kRunning;  // resumed, and its record not yet written
    world_.vmm_state = state;
    destination_.record = RecordedOutcome::kNever;
    EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
    EXPECT_TRUE(world_.source_runs);
    EXPECT_EQ(mark(), OwnershipMark::kRolledBack);
  }
}

TEST_F(LostSessionsTest, AVmThatHasLostMemoryStaysSo) {
  Record(OwnershipMark::kIncomplete);
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done) << "it has ended";
  Register(false);  // another VM of that name
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_THAT(*LostSessions(*parts_).ToSettle(), testing::IsEmpty());
  EXPECT_EQ(mark(), OwnershipMark::kIncomplete);
  const auto report = LostSessions(*parts_).Recover("web1");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->state, SessionState::kFailed);
  EXPECT_EQ(report->owner, "destination");
  EXPECT_THAT(report->report, testing::HasSubstr("a part of its memory was lost for good"));
}

TEST_F(LostSessionsTest, AnOwnerWithoutWhatWasKeptWaitsAndLosesNothing) {
  Record(OwnershipMark::kOwner);
  Register(true);  // with a descriptor that is no keepsake
  const auto settled = LostSessions(*parts_).Settle("web1");
  EXPECT_FALSE(settled.done);
  EXPECT_EQ(settled.destination, nullptr);
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
  EXPECT_TRUE(registry_.Find("web1")->arming.has_value());
}

TEST_F(LostSessionsTest, ALoadedMachineThatWasHandedOverIsNotEnded) {
  Record(OwnershipMark::kOffered);
  Register(true);
  world_.vmm_state = GuestState::kPaused;
  peers_.source_record = RecordedOutcome::kHandedOver;
  EXPECT_FALSE(LostSessions(*parts_).Settle("web1").done);  // the keepsake is none
  EXPECT_FALSE(registry_.Find("web1")->process.HasEnded());
  EXPECT_EQ(mark(), OwnershipMark::kOffered);
  world_.vmm_state = GuestState::kRunning;  // somebody has started it, nobody's guest
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_EQ(mark(), OwnershipMark::kNever);
}

TEST_F(LostSessionsTest, AMachineThatCannotBeTakenUpIsGivenBack) {
  LostSessions lost(*parts_);
  Record(OwnershipMark::kOffered);
  Register(true);  // with a descriptor that is no keepsake
  world_.vmm_state = GuestState::kPaused;
  peers_.source_record = RecordedOutcome::kHandedOver;
  const Pidfd process = std::move(registry_.Find("web1")->process);
  EXPECT_FALSE(lost.Settle("web1").done);
  EXPECT_EQ(lost.HandOver(session_.ToString()).status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(process.HasEnded());
  EXPECT_EQ(mark(), OwnershipMark::kNever);
}

TEST_F(LostSessionsTest, AHandOverIsAnsweredByTheRecord) {
  LostSessions lost(*parts_);
  const auto answer = [&] { return lost.HandOver(session_.ToString()).status().code(); };
  EXPECT_EQ(answer(), absl::StatusCode::kNotFound);
  Record(OwnershipMark::kOffered);
  EXPECT_EQ(answer(), absl::StatusCode::kUnavailable);  // its VMM may come back yet
  Record(OwnershipMark::kOwner);
  EXPECT_EQ(answer(), absl::StatusCode::kUnavailable);
  for (const OwnershipMark own :
       {OwnershipMark::kArrived, OwnershipMark::kIncomplete, OwnershipMark::kCommitted}) {
    Record(own);
    EXPECT_EQ(answer(), absl::StatusCode::kOk);
  }
  Record(OwnershipMark::kNever);
  EXPECT_EQ(answer(), absl::StatusCode::kAborted);
}

TEST_F(LostSessionsTest, AnArrivalIsTakenWhenNobodyIsAboutToTakeTheSessionUp) {
  LostSessions lost(*parts_);
  const auto answer = [&] { return lost.Arrived(session_.ToString()).code(); };
  EXPECT_EQ(answer(), absl::StatusCode::kNotFound);
  Record(OwnershipMark::kHandedOver);
  EXPECT_EQ(answer(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(mark(), OwnershipMark::kHandedOver);
  Record(SessionRole::kSource, OwnershipMark::kCommitted);
  EXPECT_EQ(answer(), absl::StatusCode::kOk);
  Record(OwnershipMark::kPrepared);
  EXPECT_EQ(answer(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(LostSessionsTest, ASourceThatCannotBeReachedIsTriedAgain) {
  Record(OwnershipMark::kPrepared);
  Register(false);
  world_.source_runs = false;
  world_.vmm_state = GuestState::kSent;
  failures_["vmm resume"] = absl::DeadlineExceededError("busy");
  EXPECT_FALSE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_EQ(mark(), OwnershipMark::kPrepared);
  failures_.clear();
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(LostSessionsTest, ADestinationWaitsForTheSourcesWord) {
  Record(OwnershipMark::kOffered);
  Register(true);
  world_.vmm_state = GuestState::kPaused;
  for (const absl::StatusOr<RecordedOutcome>& word :
       {absl::StatusOr<RecordedOutcome>(absl::UnavailableError("cut")),
        absl::StatusOr<RecordedOutcome>(RecordedOutcome::kPrepared)}) {
    peers_.source_record = word;
    EXPECT_FALSE(LostSessions(*parts_).Settle("web1").done);
    EXPECT_EQ(mark(), OwnershipMark::kOffered);
    EXPECT_FALSE(registry_.Find("web1")->process.HasEnded());
  }
}

TEST_F(LostSessionsTest, ADestinationThatHadBegunToLoadIsEnded) {
  Record(OwnershipMark::kOffered);
  Register(true);
  world_.vmm_state = GuestState::kPaused;
  const Pidfd process = std::move(registry_.Find("web1")->process);
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_TRUE(process.HasEnded());
  EXPECT_EQ(mark(), OwnershipMark::kNever);
}

TEST_F(LostSessionsTest, AVmmThatComesBackAfterNeverWasRecordedIsEnded) {
  Record(OwnershipMark::kNever);
  Register(true);
  world_.vmm_state = GuestState::kPaused;
  const Pidfd process = std::move(registry_.Find("web1")->process);
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_TRUE(process.HasEnded());
}

TEST_F(LostSessionsTest, AVmmOfThatNameThatIsNotArmedForItLivesOn) {
  Record(OwnershipMark::kOffered);
  Register(false);
  world_.vmm_state = GuestState::kRunning;
  EXPECT_TRUE(LostSessions(*parts_).Settle("web1").done);
  EXPECT_FALSE(registry_.Find("web1")->process.HasEnded());
  EXPECT_EQ(mark(), OwnershipMark::kNever);
}

TEST_F(LostSessionsTest, AnAbortIsRecordedUnlessThisHostIsTheOwner) {
  LostSessions lost(*parts_);
  // Of a session that it knows nothing of it cannot say that it never ran it.
  EXPECT_EQ(lost.Abort(session_.ToString(), "").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(store_->Read(session_, SessionRole::kDestination).status().code(), absl::StatusCode::kNotFound);
  Record(OwnershipMark::kOffered);
  Register(true);
  world_.vmm_state = GuestState::kPaused;
  EXPECT_TRUE(lost.Abort(session_.ToString(), "").ok());
  EXPECT_EQ(mark(), OwnershipMark::kNever);
  for (const OwnershipMark own :
       {OwnershipMark::kOwner, OwnershipMark::kArrived, OwnershipMark::kIncomplete,
        OwnershipMark::kCommitted}) {
    Record(SessionRole::kDestination, own);
    EXPECT_EQ(lost.Abort(session_.ToString(), "").code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_EQ(mark(), own);
  }
  EXPECT_EQ(lost.Abort("no session", "").code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(LostSessionsTest, RecoverTellsWhoOwnsIt) {
  Record(OwnershipMark::kPrepared);
  Register(false);
  world_.source_runs = false;
  world_.vmm_state = GuestState::kSent;
  const auto report = LostSessions(*parts_).Recover("web1");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->owner, "source");
  EXPECT_TRUE(world_.source_runs);
  EXPECT_EQ(destination_.record, RecordedOutcome::kNever);
  EXPECT_EQ(LostSessions(*parts_).Recover("web2").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace postcopy
