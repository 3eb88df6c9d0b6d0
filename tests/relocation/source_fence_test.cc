// The source while another host owns its VM: fenced, watched, and let go only when it is sure which of
// the two runs the guest.
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

#include "gmock/gmock.h"
#include "tests/relocation/source_fixture.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

class SourceFenceTest : public SourceSessionTest {
 protected:
  // Whether `first` was called, and `then` after it.
  bool Before(const std::string& first, const std::string& then) {
    const auto calls = world_.Calls();
    const auto at = std::find(calls.begin(), calls.end(), first);
    return at != calls.end() && std::find(at, calls.end(), then) != calls.end();
  }
  std::optional<SessionId> FencedFor() { return registry_.Find("web1")->fenced_for; }
  SessionId Session() { return *SessionId::Parse(session_); }
};

TEST_F(SourceFenceTest, TheFenceIsLaidBeforeTheHandOverAndStays) {
  std::string recorded_at_fence;
  world_.on_call = [&](const std::string& call) {
    if (call == "hook fence") recorded_at_fence = NameOf(store_->ReadAll("web1")->readable.back().mark);
  };
  ASSERT_TRUE(PrepareAndSwitch().ok());
  EXPECT_TRUE(Before("vmm take", "hook fence"));
  EXPECT_TRUE(Before("hook fence", "destination load")) << "it costs no downtime";
  EXPECT_EQ(recorded_at_fence, "prepared");
  EXPECT_EQ(FencedFor(), Session());
  EXPECT_THAT(world_.Calls(), Not(Contains("hook unfence")));
  const OwnershipRecord recorded = store_->ReadAll("web1")->readable.back();
  EXPECT_EQ(recorded.memory.size(), 1u) << "to be found without its VMM";
  EXPECT_EQ(recorded.allocated_bytes, 4096u);
}

TEST_F(SourceFenceTest, AStartBeforeTheFenceIsRolledBackWithoutOne) {
  world_.on_call = [&](const std::string& call) {
    if (call == "vmm take") world_.StartByAnotherHand();
  };
  const auto switched = PrepareAndSwitch();
  EXPECT_TRUE(absl::IsAborted(switched.status()));
  EXPECT_THAT(std::string(switched.status().message()), HasSubstr("another client of its monitor"));
  EXPECT_THAT(world_.Calls(), Not(Contains("hook fence"))) << "it would end the VMM";
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceFenceTest, AStartWhileTheFenceIsLaidIsRolledBack) {
  world_.on_call = [&](const std::string& call) {
    if (call == "destination load") world_.StartByAnotherHand();
  };
  EXPECT_TRUE(absl::IsAborted(PrepareAndSwitch().status()));
  EXPECT_THAT(world_.Calls(), Not(Contains("destination hand-over")));
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceFenceTest, AFenceThatFailsIsRolledBackWithItsReason) {
  failures_["hook fence"] = absl::UnknownError("the blocks have changed");
  const auto switched = PrepareAndSwitch();
  EXPECT_TRUE(absl::IsAborted(switched.status()));
  EXPECT_THAT(std::string(switched.status().message()),
              HasSubstr("fence the source: VM \"web1\": the blocks have changed"));
  EXPECT_TRUE(world_.source_runs);
  EXPECT_THAT(world_.Calls(), Not(Contains("destination hand-over")));
}

TEST_F(SourceFenceTest, TheFenceIsLiftedBeforeTheGuestIsResumed) {
  failures_["destination hand-over"] = absl::AbortedError("its VMM had ended");
  EXPECT_TRUE(absl::IsAborted(PrepareAndSwitch().status()));
  EXPECT_TRUE(Before("hook unfence", "vmm resume"));
  EXPECT_EQ(FencedFor(), std::nullopt);
  EXPECT_TRUE(world_.source_runs);
}

TEST_F(SourceFenceTest, AFenceThatCannotBeLiftedKeepsTheGuestStoppedAndIsTriedAgain) {
  failures_["destination load"] = absl::UnavailableError("broken");
  failures_["hook unfence"] = absl::UnknownError("out of memory");
  const auto switched = PrepareAndSwitch();
  EXPECT_THAT(std::string(switched.status().message()),
              AllOf(HasSubstr("could not be resumed yet"), HasSubstr("out of memory")));
  EXPECT_THAT(world_.Calls(), Not(Contains("vmm resume"))) << "behind the fence it would end its VMM";
  failures_.clear();
  EXPECT_EQ(relocator_->Recover("web1")->state, SessionState::kRolledBack);
  EXPECT_TRUE(world_.source_runs);
  EXPECT_EQ(FencedFor(), std::nullopt);
}

TEST_F(SourceFenceTest, ADaemonThatRestartsBeforeTheHandOverLiftsTheFenceFirst) {
  const SessionId session{{std::byte{7}}};
  ASSERT_TRUE(store_->Write({session, SessionRole::kSource, "web1", "there:7700", OwnershipMark::kPrepared, true}).ok());
  world_.source_runs = false;
  world_.vmm_state = GuestState::kSent;
  RegisterVm(std::nullopt, getpid(), wire::kAgentProtocolVersion, session);
  StartDaemon(std::chrono::hours(1));
  for (int i = 0; i < 2000 && !world_.source_runs; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(world_.source_runs);
  EXPECT_TRUE(Before("hook unfence", "vmm resume"));
}

TEST_F(SourceFenceTest, ADaemonThatRestartsAfterTheHandOverFencesWhatIsNot) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  RegisterVm();  // as by a hook whose fence was not laid
  ASSERT_EQ(FencedFor(), std::nullopt);
  StartDaemon(std::chrono::milliseconds(1));
  EXPECT_TRUE(Comes(SessionState::kRunning));
  EXPECT_EQ(FencedFor(), Session());
}

TEST_F(SourceFenceTest, AStartBehindTheFenceChangesNothingForTheDestination) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  world_.StartByAnotherHand();
  destination_.figures = Progress{};
  const auto told = [this] {
    return relocator_->Stats("web1")->error.find("the fence keeps") != std::string::npos;
  };
  for (int i = 0; i < 2000 && !told(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(state(), SessionState::kRunning);
  EXPECT_THAT(relocator_->Stats("web1")->error, HasSubstr("the fence keeps it out of its memory"));
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  EXPECT_TRUE(relocator_->OnArrived(session_, {}).ok());
}

TEST_F(SourceFenceTest, AnOlderHookIsRelocatedAndAStartThereEndsTheSession) {
  RegisterVm(std::nullopt, getpid(), wire::kOldestAgentProtocolVersion);
  ASSERT_TRUE(PrepareAndSwitch().ok());
  EXPECT_THAT(world_.Calls(), Not(Contains("hook fence")));
  EXPECT_TRUE(store_->ReadAll("web1")->readable.back().memory.empty()) << "it may have run unseen";
  world_.StartByAnotherHand();
  EXPECT_TRUE(Comes(SessionState::kFailed));
  EXPECT_THAT(relocator_->Stats("web1")->error, HasSubstr("runs twice"));
  EXPECT_EQ(record(), RecordedOutcome::kHandedOver);
  ScriptedLane lane(*ConnectTcp(page_server_->addresses()[0], std::chrono::seconds(5)));
  lane.Send(wire::EncodeHello({1, wire::Lane::kUrgent, Session()}));
  EXPECT_THAT(wire::DecodeError(lane.Read().body)->text, HasSubstr("VM web1 runs twice"))
      << "the destination is told";
  // It had all by then.
  EXPECT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_EQ(record(), RecordedOutcome::kCommitted);
}

TEST_F(SourceFenceTest, AVmmThatCouldNotBeEndedIsToldToItsOperator) {
  ASSERT_TRUE(PrepareAndSwitch().ok());
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  // The destination says it again where its first call has waited too long.
  for (int i = 0; i < 2; ++i) EXPECT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_EQ(state(), SessionState::kCommitted);
  EXPECT_THAT(relocator_->Stats("web1")->error,
              testing::AllOf(HasSubstr("could not be ended"), HasSubstr("no answer"),
                             HasSubstr("postcopyctl release web1")));
}

TEST_F(SourceFenceTest, ItsOwnStartIsNoForeignOne) {
  RegisterVm(std::nullopt, getpid(), wire::kOldestAgentProtocolVersion);
  failures_["destination hand-over"] = absl::AbortedError("its VMM had ended");
  world_.on_call = [&](const std::string& call) {
    if (call == "vmm resume") world_.StartByAnotherHand();  // the event of the start that follows
  };
  EXPECT_TRUE(absl::IsAborted(PrepareAndSwitch().status()));
  EXPECT_EQ(state(), SessionState::kRolledBack);
}

TEST_F(SourceFenceTest, AVmmThatEmptiesItsMemoryIsUnfencedToDoSo) {
  world_.empties_memory = true;
  ASSERT_TRUE(PrepareAndSwitch().ok());
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  ASSERT_TRUE(relocator_->OnArrived(session_, {}).ok());
  EXPECT_TRUE(Before("vmm restore", "hook unfence"));
  EXPECT_TRUE(Before("hook unfence", "vmm quit"));
}

TEST_F(SourceFenceTest, WhatEndsThereIsLetGoBeforeTheRecordSaysSo) {
  Progress there;
  there.state = SessionState::kFailed;
  there.error = "the source was lost";
  destination_.figures = there;
  ASSERT_TRUE(PrepareAndSwitch().ok());
  destination_.record = RecordedOutcome::kCommitted;
  failures_["vmm quit"] = absl::UnavailableError("no answer");
  std::optional<RecordedOutcome> at_quit;
  world_.on_call = [&](const std::string& call) {
    if (call == "vmm quit") at_quit = record();
  };
  (void)relocator_->Stats("web1");
  EXPECT_EQ(at_quit, RecordedOutcome::kHandedOver);
  EXPECT_EQ(record(), RecordedOutcome::kCommitted);
}

// --- before the switch ---------------------------------------------------------------------------

TEST_F(SourceFenceTest, AMachineThatCannotBeMovedAnyMoreLeavesTheDestinationsVmmUnused) {
  failures_["vmm check"] = absl::FailedPreconditionError("it is in state suspended");
  const auto switched = PrepareAndSwitch();
  EXPECT_TRUE(absl::IsAborted(switched.status()));
  EXPECT_THAT(std::string(switched.status().message()), HasSubstr("in state suspended"));
  EXPECT_THAT(world_.Calls(), AllOf(Not(Contains("destination open")), Not(Contains("vmm hold")),
                                    Not(Contains("vmm resume"))));
  EXPECT_EQ(state(), SessionState::kRolledBack);
}

TEST_F(SourceFenceTest, AHoldThatFailedAndWasUndoneTouchesTheMachineNoMore) {
  failures_["vmm hold"] = absl::FailedPreconditionError("it is in state io-error");
  EXPECT_TRUE(absl::IsAborted(PrepareAndSwitch().status()));
  EXPECT_THAT(world_.Calls(), Not(Contains("vmm resume")));
}

TEST_F(SourceFenceTest, WhatAHoldCouldNotUndoIsResumedAsItWasThen) {
  world_.left_stopped = false;  // it was paused when it was to be held, and ran when it was prepared
  failures_["vmm hold"] = absl::DeadlineExceededError("busy");
  EXPECT_TRUE(absl::IsAborted(PrepareAndSwitch().status()));
  EXPECT_THAT(world_.Calls(), Contains("vmm resume"));
  EXPECT_FALSE(world_.source_runs) << "as its operator has left it";
}

TEST_F(SourceFenceTest, AMachineThatItsOperatorPausedAfterPrepareIsRecordedSoBeforeItIsHeld) {
  const auto session = relocator_->Prepare({"web1", "there:7700", "", false});
  ASSERT_TRUE(session.ok());
  EXPECT_TRUE(store_->ReadAll("web1")->readable.back().run);
  world_.source_runs = false;
  std::optional<bool> run_at_hold;
  world_.on_call = [&](const std::string& call) {
    if (call == "vmm hold") run_at_hold = store_->ReadAll("web1")->readable.back().run;
  };
  ASSERT_TRUE(relocator_->Switch(*session).ok());
  EXPECT_EQ(run_at_hold, false);
  EXPECT_FALSE(destination_.run);
}

// It had all been taken from it: nothing was lost with it, and no client has started it.
TEST_F(SourceFenceTest, AVmmThatEndsBetweenTwoLooksForAStartIsHandedOver) {
  const auto session = PrepareOfAnotherProcess();
  ASSERT_TRUE(session.ok()) << session.status();
  world_.on_call = [&](const std::string& call) {
    if (call != "destination load") return;
    world_.monitor_closed = true;
    EndThatProcess();
  };
  const auto switched = relocator_->Switch(*session);
  EXPECT_TRUE(switched.ok()) << switched.status();
  EXPECT_TRUE(world_.destination_runs);
}

TEST_F(SourceFenceTest, AVmThatEndsBeforeTheSwitchHasEndedInOrder) {
  const auto session = PrepareOfAnotherProcess();
  ASSERT_TRUE(session.ok()) << session.status();
  EndThatProcess();
  failures_["vmm orderly exit"] = absl::UnknownError("the guest powered off");
  failures_["vmm check"] = absl::UnavailableError("the VMM has closed the connection");
  const auto switched = relocator_->Switch(*session);
  EXPECT_TRUE(absl::IsAborted(switched.status()));
  EXPECT_THAT(std::string(switched.status().message()),
              AllOf(HasSubstr("VM web2 has ended here before the switch: the guest powered off"),
                    Not(HasSubstr("crash"))));
  EXPECT_EQ(relocator_->Stats("web2")->state, SessionState::kRolledBack);
}

}  // namespace
}  // namespace postcopy
