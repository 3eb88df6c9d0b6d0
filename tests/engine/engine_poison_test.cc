// The engine whose source is given up: what has not come is poisoned, once, and nothing else is.
#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "tests/engine/engine_faults_fixture.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

TEST_F(EngineFaultsTest, WhatHasNotComeWhenTheSourceIsGivenUpIsPoisonedOnce) {
  Begin(LoopbackPlan().CutAfterDeliveries(4));
  engine_->StartBulk();
  Fault(700);
  transport_->DeliverAll();
  ASSERT_TRUE(engine_->interruption().has_value());
  Discard(1000, 4);
  const std::vector<uint64_t> filled = FilledPages();
  ASSERT_GT(filled.size(), 0u);
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, kPages - filled.size() - 4);
  EXPECT_EQ(engine_->WaitComplete(milliseconds(0)), Engine::Wait::kTimeout) << "never complete";
  std::vector<uint64_t> all = filled;
  for (const auto& record : device_.TakeCalls()) {
    ASSERT_EQ(record.call, Call::kPoison);
    for (uint64_t i = 0; i < record.pages.count_pages; ++i) {
      all.push_back(record.pages.first.value + i);
    }
  }
  std::sort(all.begin(), all.end());
  EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  EXPECT_EQ(all.size(), kPages - 4);
  ASSERT_TRUE(engine_->Finish().ok());
  EXPECT_THAT(device_.TakeCalls(),
              testing::ElementsAre(FakeFaultDevice::Record{Call::kUnregister, {{0}, kPages}, {}}));
  EXPECT_EQ(engine_->WaitComplete(milliseconds(0)), Engine::Wait::kStopped);
}

TEST_F(EngineFaultsTest, ASourceThatComesBackAfterItWasGivenUpBringsNothing) {
  Begin(LoopbackPlan().CutAfterDeliveries(2));
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_TRUE(engine_->PoisonMissing().ok());
  device_.TakeCalls();
  transport_->Restore();
  transport_->DeliverAll();
  Fault(900);  // on its way when the page was poisoned
  EXPECT_THAT(device_.TakeCalls(), testing::IsEmpty());
}

TEST_F(EngineFaultsTest, AKernelThatCannotPoisonChangesNothing) {
  device_.ForbidPoison();
  Begin(LoopbackPlan().CutAfterDeliveries(2));
  engine_->StartBulk();
  transport_->DeliverAll();
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_FALSE(poisoned.ok());
  EXPECT_EQ(poisoned.error().code, ErrorCode::kUnsupported);
  EXPECT_THAT(poisoned.error().message, HasSubstr("no UFFDIO_POISON (Linux 6.6 or later)"));
  transport_->Restore();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  ExpectEveryPageFilledOnce();
}

TEST_F(EngineFaultsTest, PoisonWaitsForDiscardsAndPassesOverWhatIsHere) {
  Begin(LoopbackPlan().CutAfterDeliveries(0));
  transport_->DeliverAll();
  device_.Script(Call::kPoison, {{InstallOutcome::kRetry, 10},
                                 {InstallOutcome::kRetry, 0},
                                 {InstallOutcome::kAlreadyPresent, 5},
                                 {InstallOutcome::kRangeGone},
                                 {InstallOutcome::kRangeGone}});
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, kPages - 1) << "page 15 was here";
  const auto calls = device_.TakeCalls();
  ASSERT_GE(calls.size(), 7u);
  const auto poison = [](uint64_t first, uint64_t pages) {
    return FakeFaultDevice::Record{Call::kPoison, {{first}, pages}, {}};
  };
  EXPECT_EQ(calls[0], poison(0, kPages));
  EXPECT_EQ(calls[1], poison(10, kPages - 10));
  EXPECT_EQ(calls[2], poison(10, kPages - 10));
  EXPECT_EQ(calls[3], Wake(15));
  EXPECT_EQ(calls[4], poison(16, kPages - 16));
  EXPECT_EQ(calls[5], poison(16, 1));  // which of them is gone
  EXPECT_EQ(calls[6], poison(17, 1));
}

TEST_F(EngineFaultsTest, PoisonThatFailsIsTriedAgainWhole) {
  Begin(LoopbackPlan().CutAfterDeliveries(0));
  transport_->DeliverAll();
  device_.Script(Call::kPoison, {{InstallOutcome::kFailed, 3, ENOMEM}});
  const auto failed = engine_->PoisonMissing();
  ASSERT_FALSE(failed.ok());
  EXPECT_THAT(failed.error().message, HasSubstr("poison guest memory: Cannot allocate"));
  device_.TakeCalls();
  device_.Script(Call::kPoison, {{InstallOutcome::kAlreadyPresent},
                                 {InstallOutcome::kAlreadyPresent},
                                 {InstallOutcome::kAlreadyPresent}});
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, kPages);
}

TEST_F(EngineFaultsTest, WithoutAVmOrAfterTheEndNothingIsPoisoned) {
  Begin(LoopbackPlan().CutAfterDeliveries(0));
  device_.Script(Call::kPoison, {{InstallOutcome::kProcessGone}});
  EXPECT_EQ(engine_->PoisonMissing().error().code, ErrorCode::kUnavailable);
  engine_->Stop();
  EXPECT_EQ(engine_->PoisonMissing().error().code, ErrorCode::kUnavailable);
}

TEST_F(EngineFaultsTest, NothingMissingIsNothingPoisoned) {
  Begin();
  engine_->StartBulk();
  transport_->DeliverAll();
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, 0u);
  EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
}

TEST_F(EngineFaultsTest, WhoTakesUpFinishesWhatWasBeingPoisoned) {
  std::vector<std::atomic<uint8_t>> bytes(kPages);
  {
    PageMap before(layout_, bytes);
    before.Claim({{0}, {0}});
    before.Finish({{0}, {0}}, true);
    for (uint64_t page = 1; page < 11; ++page) before.Poison({{0}, {page}});
  }
  auto transport = std::make_unique<LoopbackTransport>(layout_);
  engine_.emplace(std::move(transport), device_, regions_,
                  EngineOptions{.page_bytes = bytes, .takes_up = true});
  ASSERT_TRUE(engine_->Start().ok());
  device_.TakeCalls();
  device_.Script(Call::kPoison, {{InstallOutcome::kAlreadyPresent, 0},
                                 {InstallOutcome::kInstalled, 9},
                                 {InstallOutcome::kAlreadyPresent, 0}});
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, kPages - 2) << "what was not marked before and is there, has come";
}

TEST_F(EngineFaultsTest, WhatStallsIsStillPoisonedWhenItsSourceIsGivenUp) {
  Begin();
  device_.Script(Call::kCopy, {{InstallOutcome::kFailed, 0, ENOMEM}});
  Fault(4);
  transport_->DeliverOne();
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, kPages);
}

}  // namespace
}  // namespace postcopy
