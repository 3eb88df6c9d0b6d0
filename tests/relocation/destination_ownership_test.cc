// A destination that was handed the VM and cannot run it: its record cannot be written, or its VMM
// refuses. When it gives the VM back, and when it must not.
#include <signal.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platform/pidfd.h"
#include "platform/process_identity.h"
#include "relocation/destination_session.h"
#include "relocation/relocator.h"
#include "tests/relocation/armed_vm_fixture.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

class DestinationOwnershipTest : public ArmedVmFixture {
 protected:
  DestinationOwnershipTest() {
    world_.vmm_state = GuestState::kPaused;
    world_.source_runs = false;
    peers_.source_record = RecordedOutcome::kHandedOver;
    RegisterAnother();
    process_.emplace(std::move(*Pidfd::Open(vmm_)));
    identity_ = *Identify(*process_);
    EXPECT_TRUE(store_->Write(Record(OwnershipMark::kOffered)).ok());
  }
  ~DestinationOwnershipTest() override { session_of_.reset(); }

  OwnershipRecord Record(OwnershipMark mark) {
    return {session_, SessionRole::kDestination, "web1", "there:7700", mark, true, false,
            identity_};
  }
  // The session that was handed over, as a daemon resumes it.
  void TakeUp(OwnershipMark mark = OwnershipMark::kOffered) {
    parts_.emplace(Parts());
    parts_->start_tries = std::chrono::milliseconds(0);
    auto session = DestinationSession::TakeUp(*parts_, Record(mark), *registry_.Find("web1"));
    ASSERT_TRUE(session.ok()) << session.status();
    session_of_ = *std::move(session);
  }
  // Its record cannot be written, nor read, until the test ends or calls Repair().
  void BreakStateDirectory() {
    std::filesystem::rename(folder_ + "/state", folder_ + "/state-away");
  }
  void Repair() { std::filesystem::rename(folder_ + "/state-away", folder_ + "/state"); }
  bool Comes(SessionState wanted, const std::string& error = "") {
    for (int i = 0; i < 4000; ++i) {
      const Progress now = session_of_->Snapshot();
      if (now.state == wanted && now.error.find(error) != std::string::npos) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  bool VmmIsDead() { return process_->HasEnded(); }
  OwnershipMark mark() { return store_->Read(session_, SessionRole::kDestination)->mark; }

  std::optional<Pidfd> process_;
  ProcessIdentity identity_;
  std::optional<DaemonParts> parts_;
  std::shared_ptr<DestinationSession> session_of_;
};

TEST_F(DestinationOwnershipTest, OwnerThatCannotBeWrittenIsGivenBackDead) {
  BreakStateDirectory();
  TakeUp();
  const auto answer = session_of_->HandOver();
  EXPECT_TRUE(IsDeadNotRecorded(answer.status())) << answer.status();
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("cannot be recorded"));
  EXPECT_TRUE(VmmIsDead());
  EXPECT_FALSE(world_.destination_runs);
  EXPECT_TRUE(IsDeadNotRecorded(session_of_->Abort("the source asks again")));
  Repair();
  EXPECT_TRUE(absl::IsAborted(session_of_->HandOver().status()));
  EXPECT_EQ(mark(), OwnershipMark::kNever);
  EXPECT_EQ(session_of_->state(), SessionState::kRolledBack);
}

TEST_F(DestinationOwnershipTest, ARefusedStartIsGivenBackWhenTheSourceIsFenced) {
  failures_["vmm start"] = absl::FailedPreconditionError("Failed to get write lock");
  TakeUp();
  ASSERT_TRUE(Comes(SessionState::kRolledBack, "Failed to get write lock"));
  EXPECT_TRUE(VmmIsDead());
  EXPECT_EQ(mark(), OwnershipMark::kNever);
  EXPECT_TRUE(absl::IsAborted(session_of_->HandOver().status()));
}

TEST_F(DestinationOwnershipTest, ARefusedStartIsKeptWhileTheSourceDoesNotConfirm) {
  failures_["vmm start"] = absl::FailedPreconditionError("Failed to get write lock");
  peers_.source_fenced = absl::UnavailableError("no route");
  TakeUp();
  ASSERT_TRUE(Comes(SessionState::kHandedOver, "it cannot be given back now: no route"));
  EXPECT_THAT(session_of_->Snapshot().error, HasSubstr("refuses to start it: Failed to get"));
  EXPECT_FALSE(VmmIsDead());
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
  EXPECT_TRUE(session_of_->AwaitsStart());
  EXPECT_TRUE(absl::IsFailedPrecondition(session_of_->Abort("the source asks")));
}

TEST_F(DestinationOwnershipTest, AStartWithoutAnAnswerIsNeverGivenBack) {
  failures_["vmm start"] = absl::DeadlineExceededError("no answer within 5 s");
  TakeUp();
  ASSERT_TRUE(Comes(SessionState::kHandedOver, "has not started it yet: no answer"));
  session_of_->HandOver().IgnoreError();
  session_of_->HandOver().IgnoreError();
  EXPECT_FALSE(VmmIsDead());
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
}

TEST_F(DestinationOwnershipTest, WhatAnEarlierDaemonMayHaveStartedIsNeverGivenBack) {
  failures_["vmm start"] = absl::FailedPreconditionError("Failed to get write lock");
  ASSERT_TRUE(store_->Write(Record(OwnershipMark::kOwner)).ok());
  TakeUp(OwnershipMark::kOwner);
  ASSERT_TRUE(Comes(SessionState::kHandedOver, "whether it ran here is not known"));
  EXPECT_FALSE(VmmIsDead());
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
}

TEST_F(DestinationOwnershipTest, AGuestThatSomebodyStartedBeforeItsVmmWasEndedIsNotGivenBack) {
  failures_["vmm start"] = absl::FailedPreconditionError("Failed to get write lock");
  failures_["vmm may have run"] = absl::InternalError("a RESUME");
  TakeUp();
  ASSERT_TRUE(Comes(SessionState::kFailed, "somebody else started it there"));
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
  EXPECT_TRUE(absl::IsDataLoss(session_of_->HandOver().status()));
}

TEST_F(DestinationOwnershipTest, OwnerWhoseVmmIsGoneBecomesNeverWhenTheSourceHasRolledBack) {
  ASSERT_TRUE(store_->Write(Record(OwnershipMark::kOwner)).ok());
  kill(vmm_, SIGKILL);
  ASSERT_TRUE(process_->WaitEnded(std::chrono::seconds(10)));
  registry_.RemoveEnded();
  peers_.source_record = RecordedOutcome::kRolledBack;
  const auto relocator = *Relocator::Start(Parts());
  const auto report = relocator->Recover("web1");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->owner, "source");
  EXPECT_EQ(mark(), OwnershipMark::kNever);
}

TEST_F(DestinationOwnershipTest, OwnerWhoseVmmIsGoneStaysOwnerWhileTheSourceHasHandedOver) {
  ASSERT_TRUE(store_->Write(Record(OwnershipMark::kOwner)).ok());
  kill(vmm_, SIGKILL);
  ASSERT_TRUE(process_->WaitEnded(std::chrono::seconds(10)));
  registry_.RemoveEnded();
  const auto relocator = *Relocator::Start(Parts());
  EXPECT_EQ(relocator->Recover("web1")->owner, "destination");
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
}

}  // namespace
}  // namespace postcopy
