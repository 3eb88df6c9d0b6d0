// A destination whose source is gone for good, over memory and a userfaultfd of this process: what
// is missing is poisoned or the VM ended, on an operator's word or by the policy, and never reads
// as zero.
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <thread>

#include "gtest/gtest.h"
#include "relocation/relocator.h"
#include "tests/platform/sigbus.h"
#include "tests/relocation/armed_vm_fixture.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

class SourceLossTest : public ArmedVmFixture {
 protected:
  SourceLossTest() {
    world_.vmm_state = GuestState::kPaused;
    world_.source_runs = false;
    EXPECT_TRUE(store_->Write({session_, SessionRole::kDestination, "web1", "there:7700", OwnershipMark::kOwner, true}).ok());
  }
  ~SourceLossTest() override {
    relocator_.reset();
    if (memory_owner_ > 0) kill(memory_owner_, SIGKILL);
  }

  void StartDaemon(SourceLostPolicy policy = {}) {
    relocator_.reset();
    DaemonParts parts = Parts();
    parts.source_lost = policy;
    relocator_ = *Relocator::Start(std::move(parts));
  }
  // As RegisterAnother(), but the memory is that of yet another process, which may be killed first.
  void RegisterWithMemoryOfAnother() {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    memory_owner_ = fork();
    if (memory_owner_ == 0) {
      const auto userfault = CreateUserfault(-1);
      const int fd = userfault.ok() ? userfault->get() : -1;
      if (write(ready[1], &fd, sizeof fd) != sizeof fd) _exit(1);
      for (;;) pause();
    }
    int fd = -1;
    ASSERT_EQ(read(ready[0], &fd, sizeof fd), ssize_t{sizeof fd});
    const Pidfd owner = std::move(*Pidfd::Open(memory_owner_));
    userfault_ = UniqueFd(static_cast<int>(syscall(SYS_pidfd_getfd, owner.fd(), fd, 0)));
    ASSERT_TRUE(userfault_.valid());
    close(ready[0]);
    close(ready[1]);
    RegisterAnother();
  }

  bool Comes(SessionState wanted, const std::string& error = "") {
    for (int i = 0; i < 2000; ++i) {
      const auto now = relocator_->Stats("web1");
      if (now.ok() && now->state == wanted && now->error.find(error) != std::string::npos)
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }
  bool ComesWithoutItsSource() {
    return Comes(SessionState::kRunning, "the source cannot be reached");
  }
  bool Fails(uint64_t page) const { return RaisesSigbus(memory_ + page * kPageBytes); }
  void ExpectPoisoned() {
    for (uint64_t page = 0; page < kPages; ++page) EXPECT_EQ(Fails(page), page >= kHere) << page;
    EXPECT_EQ(mark(), OwnershipMark::kIncomplete);
    EXPECT_EQ(*relocator_->OnQuery(session_.ToString(), SessionRole::kDestination), RecordedOutcome::kCommitted);
    EXPECT_TRUE(registry_.Find("web1")->arming.has_value()) << "its hook keeps the session";
  }
  OwnershipMark mark() { return store_->Read(session_, SessionRole::kDestination)->mark; }

  pid_t memory_owner_ = 0;  // another process than vmm_'s, or 0
  std::unique_ptr<Relocator> relocator_;

};

TEST_F(SourceLossTest, AnOperatorsPoisonEndsTheSessionAndTheVmRunsOn) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  RegisterThisProcess();
  StartDaemon();
  ASSERT_TRUE(ComesWithoutItsSource());
  std::thread vcpu([this] { EXPECT_TRUE(Fails(40)); });
  const auto report = relocator_->SourceLost("web1", SourceLostAction::kPoison);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(
      *report,
      "the source was lost: 54 pages (216 KiB) of VM web1 never arrived and are poisoned; the VM "
      "runs on without them");
  vcpu.join();
  const auto ended = relocator_->Stats("web1");
  EXPECT_EQ(ended->state, SessionState::kFailed);
  EXPECT_EQ(ended->error, *report);
  ExpectPoisoned();
  EXPECT_TRUE(relocator_->OnHandOver(session_.ToString()).ok()) << "to a source that asks late";
  EXPECT_TRUE(absl::IsFailedPrecondition(relocator_->OnAbort(session_.ToString(), "late")));
  const auto recovered = relocator_->Recover("web1");
  EXPECT_EQ(recovered->owner, "destination");
  EXPECT_THAT(recovered->report,
              testing::AllOf(HasSubstr("VM web1 came here from there:7700"), HasSubstr(*report)));
  const auto onwards = relocator_->Prepare({"web1", "further:7700", "", false});
  EXPECT_TRUE(absl::IsFailedPrecondition(onwards.status()));
  EXPECT_THAT(
      std::string(onwards.status().message()),
      testing::AllOf(HasSubstr("a part of its memory was lost for good when it came here from "
                               "there:7700"),
                     HasSubstr("postcopyctl recover web1")));
  EXPECT_EQ(mark(), OwnershipMark::kIncomplete);
}

TEST_F(SourceLossTest, TheNextDaemonTellsTheSame) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  RegisterThisProcess();
  StartDaemon();
  ASSERT_TRUE(ComesWithoutItsSource());
  const auto report = relocator_->SourceLost("web1", SourceLostAction::kPoison);
  ASSERT_TRUE(report.ok()) << report.status();
  StartDaemon();
  EXPECT_TRUE(Comes(SessionState::kFailed, *report));
  ExpectPoisoned();
}

TEST_F(SourceLossTest, WhatADaemonHadNotPoisonedWhenItEndedTheNextOnePoisons) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  EXPECT_TRUE(
      store_->Write({session_, SessionRole::kDestination, "web1", "there:7700", OwnershipMark::kIncomplete, true}).ok());
  PageMap map(keepsake_->layout(), keepsake_->page_bytes());
  for (uint64_t page = kHere; page < 30; ++page) map.Poison({{0}, {page}});
  ASSERT_EQ(PoisonPages(userfault_.get(), reinterpret_cast<uint64_t>(memory_) + kHere * kPageBytes,
                        5 * kPageBytes)
                .outcome,
            InstallOutcome::kInstalled);
  RegisterThisProcess();
  StartDaemon();
  EXPECT_TRUE(Comes(SessionState::kFailed, "54 pages (216 KiB) of VM web1 never arrived"));
  ExpectPoisoned();
}

TEST_F(SourceLossTest, ByThePolicyItIsPoisonedWithoutACommand) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  RegisterThisProcess();
  StartDaemon({SourceLostAction::kPoison, std::chrono::seconds(0)});
  EXPECT_TRUE(Comes(SessionState::kFailed, "54 pages (216 KiB) of VM web1 never arrived"));
  ExpectPoisoned();
}

TEST_F(SourceLossTest, WhatCannotBeRecordedIsNotDone) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  RegisterThisProcess();
  StartDaemon();
  ASSERT_TRUE(ComesWithoutItsSource());
  std::filesystem::rename(folder_ + "/state", folder_ + "/away");
  const auto refused = relocator_->SourceLost("web1", SourceLostAction::kPoison);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted) << refused.status();
  std::filesystem::rename(folder_ + "/away", folder_ + "/state");
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
  EXPECT_TRUE(ComesWithoutItsSource());
  EXPECT_TRUE(relocator_->SourceLost("web1", SourceLostAction::kPoison).ok());
  ExpectPoisoned();
}

TEST_F(SourceLossTest, AVmThatEndsWhileItIsBeingPoisonedHasEndedAsInACrash) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  RegisterWithMemoryOfAnother();
  StartDaemon();
  ASSERT_TRUE(ComesWithoutItsSource());
  // A process that ends loses its memory first, and is seen to have ended a while later.
  kill(memory_owner_, SIGKILL);
  waitpid(memory_owner_, nullptr, 0);
  std::thread ending([this] {
    while (mark() != OwnershipMark::kIncomplete) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    kill(vmm_, SIGKILL);
  });
  const auto report = relocator_->SourceLost("web1", SourceLostAction::kPoison);
  ending.join();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(*report, HasSubstr("the source was lost: the VM has ended as in a crash"));
  EXPECT_THAT(*report, HasSubstr("54 pages (216 KiB) of its memory that never arrived"));
  EXPECT_EQ(relocator_->Stats("web1")->state, SessionState::kFailed);
  EXPECT_EQ(relocator_->Stats("web1")->error, *report);
  EXPECT_EQ(mark(), OwnershipMark::kIncomplete);
}

TEST_F(SourceLossTest, AKilledVmHasEndedAsInACrash) {
  RegisterAnother();
  StartDaemon();
  ASSERT_TRUE(ComesWithoutItsSource());
  const Pidfd process = std::move(registry_.Find("web1")->process);
  const auto report = relocator_->SourceLost("web1", SourceLostAction::kKill);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(*report,
              testing::AllOf(HasSubstr("the source was lost: the VM has been ended"),
                             HasSubstr("54 pages (216 KiB) of its memory had not arrived")));
  EXPECT_TRUE(process.HasEnded());
  EXPECT_EQ(relocator_->Stats("web1")->state, SessionState::kFailed);
  EXPECT_EQ(relocator_->Stats("web1")->error, *report);
  EXPECT_EQ(mark(), OwnershipMark::kOwner);
  EXPECT_TRUE(absl::IsDataLoss(relocator_->OnHandOver(session_.ToString()).status()));
  const auto late = relocator_->SourceLost("web1", SourceLostAction::kKill);
  EXPECT_EQ(late.status().message(),
            "source-lost web1: its memory is not arriving, the session is failed");
}

TEST_F(SourceLossTest, ByThePolicyItIsKilledWhenItsTimeHasCome) {
  RegisterAnother();
  StartDaemon({SourceLostAction::kKill, std::chrono::hours(1)});
  ASSERT_TRUE(ComesWithoutItsSource());
  EXPECT_FALSE(registry_.Find("web1")->process.HasEnded());
  StartDaemon({SourceLostAction::kKill, std::chrono::seconds(0)});
  EXPECT_TRUE(Comes(SessionState::kFailed, "the source was lost: the VM has been ended"));
}

TEST_F(SourceLossTest, AGuestThatCouldNotBeStartedYetIsGivenUpAllTheSame) {
  if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  failures_["vmm start"] = absl::DeadlineExceededError("it waits for memory");
  RegisterThisProcess();
  StartDaemon({SourceLostAction::kPoison, std::chrono::seconds(0)});
  for (int i = 0; i < 2000 && mark() != OwnershipMark::kIncomplete; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_EQ(mark(), OwnershipMark::kIncomplete);
  EXPECT_EQ(relocator_->Stats("web1")->state, SessionState::kHandedOver);
  EXPECT_FALSE(world_.destination_runs);
}

}  // namespace
}  // namespace postcopy
