// What a daemon makes of VMs that are in the middle of a session whose record is missing or damaged:
// what can be known is recorded again, nothing is ended or started on less, and it is all told.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "core/page_map.h"
#include "engine/keepsake.h"
#include "gtest/gtest.h"
#include "platform/duplicate_fd.h"
#include "relocation/lost_sessions.h"
#include "tests/relocation/daemon_fixture.h"

namespace postcopy {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr uint64_t kPages = 4;

class LostRecordsTest : public DaemonFixture {
 protected:
  LostRecordsTest()
      : parts_(Parts()), keepsake_(MakeKeepsake("there:7700")), vmm_(fork()) {
    if (vmm_ == 0) {
      for (;;) pause();
    }
    peers_.source_record = absl::UnavailableError("cut");
  }
  ~LostRecordsTest() override {
    kill(vmm_, SIGKILL);
    waitpid(vmm_, nullptr, 0);
  }

  static SessionId Session(int id) {
    SessionId session{};
    session.bytes[0] = static_cast<std::byte>(id);
    return session;
  }
  static Keepsake MakeKeepsake(const std::string& control_address) {
    return *Keepsake::Make({Session(7), {{{"ram", kPages * kPageBytes}, 0x7f0000000000}},
                            {"127.0.0.1:1"}, control_address});
  }
  // The VM registers; if it waits for memory, then of the keepsake's session.
  void Register(bool armed) {
    VmRegistry::Registration registration;
    registration.message.vm_name = "web1";
    registration.message.qmp_path = "/qmp";
    if (armed) {
      registration.message.armed_session = Session(7);
      registration.userfault = UniqueFd(dup(0));
      registration.keepsake = *DuplicateFd(keepsake_.memfd());
    }
    registration.process = *Pidfd::Open(vmm_);
    ASSERT_TRUE(registry_.Register(1, std::move(registration)).ok());
  }
  void Record(SessionRole role, OwnershipMark mark, int session = 7) {
    ASSERT_TRUE(store_->Write({Session(session), role, "web1", "there:7700", mark}).ok());
  }
  absl::StatusOr<OwnershipRecord> Recorded(SessionRole role = SessionRole::kDestination) {
    return store_->Read(Session(7), role);
  }
  // A byte of both copies of a record.
  void Damage(SessionRole role, size_t at) {
    std::fstream file(store_->PathOf(Session(7), role));
    for (const size_t copy : {size_t{0}, kOwnershipBlockBytes}) {
      file.seekp(static_cast<std::streamoff>(copy + at)).put('!');
    }
  }
  bool VmmLives() { return !Pidfd::Open(vmm_)->HasEnded(); }
  std::string DoNotEnd() { return "Do not end process " + std::to_string(vmm_); }
  std::string Problem() {
    return LostSessions::ProblemOf(registry_.List().front(), *store_->ReadAll());
  }

  const DaemonParts parts_;
  Keepsake keepsake_;
  pid_t vmm_;
};

TEST_F(LostRecordsTest, AGuestThatWasStartedHereIsThisHosts) {
  Register(/*armed=*/true);
  keepsake_.NoteResumed(1);
  LostSessions(parts_).Settle("web1");
  ASSERT_TRUE(Recorded().ok()) << Recorded().status();
  EXPECT_EQ(Recorded()->mark, OwnershipMark::kOwner);
  EXPECT_EQ(Recorded()->peer, "there:7700");
  EXPECT_EQ(Recorded()->vmm.pid, vmm_);
  EXPECT_TRUE(VmmLives());
}

TEST_F(LostRecordsTest, WhatWasHandedOverToThisHostIsItsOwn) {
  Register(/*armed=*/true);
  peers_.source_record = RecordedOutcome::kHandedOver;
  LostSessions(parts_).Settle("web1");
  ASSERT_TRUE(Recorded().ok());
  EXPECT_EQ(Recorded()->mark, OwnershipMark::kOwner);
}

TEST_F(LostRecordsTest, WhatHasLostMemoryIsNotTakenForComplete) {
  Register(/*armed=*/true);
  keepsake_.NoteResumed(1);
  PageMap(keepsake_.layout(), keepsake_.page_bytes()).Poison({{0}, {2}});
  LostSessions(parts_).Settle("web1");
  EXPECT_EQ(Recorded()->mark, OwnershipMark::kIncomplete);
}

TEST_F(LostRecordsTest, WithoutTheSourcesWordNothingIsDecided) {
  Register(/*armed=*/true);
  for (const absl::StatusOr<RecordedOutcome>& answer :
       {absl::StatusOr<RecordedOutcome>(absl::UnavailableError("cut")),
        absl::StatusOr<RecordedOutcome>(RecordedOutcome::kNone),
        absl::StatusOr<RecordedOutcome>(RecordedOutcome::kPrepared),
        absl::StatusOr<RecordedOutcome>(RecordedOutcome::kCommitted),  // pages are missing
        absl::StatusOr<RecordedOutcome>(RecordedOutcome::kUnreadable)}) {
    peers_.source_record = answer;
    const auto settled = LostSessions(parts_).Settle("web1");
    EXPECT_FALSE(settled.done);
    EXPECT_TRUE(absl::IsNotFound(Recorded().status()));
    EXPECT_TRUE(VmmLives());
    EXPECT_TRUE(registry_.Find("web1")->arming.has_value());
  }
}

TEST_F(LostRecordsTest, WhatHasArrivedIsCommitted) {
  Register(/*armed=*/true);
  PageMap map(keepsake_.layout(), keepsake_.page_bytes());
  map.MarkEmpty({0}, {{0}, kPages});
  peers_.source_record = RecordedOutcome::kCommitted;
  LostSessions(parts_).Settle("web1");
  EXPECT_EQ(Recorded()->mark, OwnershipMark::kArrived);
}

TEST_F(LostRecordsTest, AMissingRecordOfAnArrivalIsTold) {
  Register(/*armed=*/true);
  LostSessions lost(parts_);
  lost.Settle("web1");
  const auto report = lost.Recover("web1");
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->owner, "unknown");
  EXPECT_THAT(report->report, AllOf(HasSubstr("session " + Session(7).ToString()),
                                    HasSubstr("is missing"), HasSubstr(DoNotEnd()),
                                    HasSubstr("cut")));
  EXPECT_THAT(Problem(), AllOf(HasSubstr("is missing"), HasSubstr(DoNotEnd())));
}

TEST_F(LostRecordsTest, ADamagedRecordOfAnArrivalIsNamed) {
  Record(SessionRole::kDestination, OwnershipMark::kOwner);
  Damage(SessionRole::kDestination, 100);
  Register(/*armed=*/true);
  const std::string path = store_->PathOf(Session(7), SessionRole::kDestination);
  EXPECT_THAT(LostSessions(parts_).Recover("web1")->report,
              AllOf(HasSubstr(path), HasSubstr(DoNotEnd())));
  EXPECT_THAT(Problem(), HasSubstr(path));
  // And it is written again where the source tells what it was.
  peers_.source_record = RecordedOutcome::kHandedOver;
  LostSessions(parts_).Settle("web1");
  EXPECT_EQ(Recorded()->mark, OwnershipMark::kOwner);
  EXPECT_EQ(Problem(), "");
}

TEST_F(LostRecordsTest, ASourceThatStandsStillWithoutARecordIsTold) {
  Register(/*armed=*/false);
  for (const GuestState state : {GuestState::kSent, GuestState::kHeldAtSwitchover}) {
    world_.vmm_state = state;
    LostSessions lost(parts_);
    EXPECT_TRUE(lost.Settle("web1").done);
    EXPECT_EQ(world_.vmm_state, state) << "nothing is started";
    const auto report = lost.Recover("web1");
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->owner, "unknown");
    EXPECT_THAT(report->report, HasSubstr(DoNotEnd()));
  }
  world_.vmm_state = GuestState::kRunning;
  EXPECT_TRUE(absl::IsNotFound(LostSessions(parts_).Recover("web1").status()));
}

TEST_F(LostRecordsTest, ASourceWhoseMarkIsDamagedServesItsMemoryAgain) {
  Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  Damage(SessionRole::kSource, 100);
  Register(/*armed=*/false);
  world_.vmm_state = GuestState::kSent;
  world_.source_runs = false;
  EXPECT_THAT(LostSessions(parts_).Recover("web1")->report,
              AllOf(HasSubstr(store_->PathOf(Session(7), SessionRole::kSource)),
                    HasSubstr(DoNotEnd())));
  EXPECT_THAT(Problem(), HasSubstr(".source.json"));
  destination_.record = RecordedOutcome::kOwner;
  LostSessions(parts_).Settle("web1");
  ASSERT_TRUE(Recorded(SessionRole::kSource).ok());
  EXPECT_EQ(Recorded(SessionRole::kSource)->mark, OwnershipMark::kHandedOver);
  EXPECT_FALSE(world_.source_runs);
}

TEST_F(LostRecordsTest, ASourceWhoseMarkIsDamagedAndThatNobodyElseRunsGoesOn) {
  Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  Damage(SessionRole::kSource, 100);
  Register(/*armed=*/false);
  world_.vmm_state = GuestState::kSent;
  world_.source_runs = false;
  destination_.record = RecordedOutcome::kNever;
  EXPECT_TRUE(LostSessions(parts_).Settle("web1").done);
  EXPECT_TRUE(world_.source_runs);
  EXPECT_EQ(Recorded(SessionRole::kSource)->mark, OwnershipMark::kRolledBack);
}

TEST_F(LostRecordsTest, AFileThatTellsNothingIsNamedWhereAVmHasNoRecord) {
  Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  for (const size_t line : {size_t{100}, kOwnershipLineBytes + 100}) Damage(SessionRole::kSource, line);
  Register(/*armed=*/false);
  const std::string path = store_->PathOf(Session(7), SessionRole::kSource);
  EXPECT_THAT(LostSessions(parts_).Recover("web1")->report, HasSubstr(path));
  EXPECT_THAT(Problem(), HasSubstr("may be of this VM"));
}

// The last record is of a session that was given up; the VMM waits for memory of the one before.
TEST_F(LostRecordsTest, TheSessionThatTheVmmIsArmedForCounts) {
  Record(SessionRole::kDestination, OwnershipMark::kOwner);
  Record(SessionRole::kDestination, OwnershipMark::kNever, /*session=*/8);
  Register(/*armed=*/true);
  const auto settled = LostSessions(parts_).Settle("web1");
  EXPECT_FALSE(settled.done) << "it is taken up, as far as its memory is there";
  EXPECT_TRUE(VmmLives());
  EXPECT_EQ(LostSessions(parts_).Recover("web1")->owner, "destination");
}

TEST_F(LostRecordsTest, ARecordThatWasPutBackSaysNoMoreThanTheSource) {
  Record(SessionRole::kDestination, OwnershipMark::kOffered);
  Register(/*armed=*/false);
  auto report = LostSessions(parts_).Recover("web1");
  EXPECT_EQ(report->owner, "unknown");
  peers_.source_record = RecordedOutcome::kCommitted;
  report = LostSessions(parts_).Recover("web1");
  EXPECT_EQ(report->owner, "destination");
  EXPECT_THAT(report->report, HasSubstr("older than that"));
  EXPECT_TRUE(LostSessions(parts_).Settle("web1").done);
  EXPECT_EQ(Recorded()->mark, OwnershipMark::kCommitted);
}

}  // namespace
}  // namespace postcopy
