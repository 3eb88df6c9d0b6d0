// The engine when pages come late, twice or in another order, when lanes are cut, and when what has come
// cannot be installed.
#include <algorithm>
#include <atomic>
#include <memory>
#include <thread>
#include <vector>

#include "tests/engine/engine_faults_fixture.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::Contains;
using testing::HasSubstr;
using testing::Not;

TEST_F(EngineFaultsTest, BulkAloneFillsEveryPageOnceAndFinishUnregisters) {
  Begin();
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  ExpectEveryPageFilledOnce();
  ASSERT_TRUE(engine_->Finish().ok());
  EXPECT_THAT(device_.TakeCalls(),
              Contains(FakeFaultDevice::Record{Call::kUnregister, {{0}, kPages}, {}}).Times(1));
  EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
}

TEST_F(EngineFaultsTest, DemandedPagesAndBulkTogetherFillEveryPageOnce) {
  for (const auto order : {LoopbackPlan::Order::kAsAsked, LoopbackPlan::Order::kNewestFirst,
                           LoopbackPlan::Order::kBulkFirst}) {
    Begin(LoopbackPlan().Deliver(order));
    engine_->StartBulk();
    for (uint64_t page = 5; page < kPages; page += 97) {
      Fault(page);
      transport_->DeliverOne();
    }
    transport_->DeliverAll();
    ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
    ExpectEveryPageFilledOnce();
    const FaultFigures faults = engine_->Figures().faults;
    EXPECT_EQ(faults.served, faults.faults);
    engine_.reset();
  }
}

TEST_F(EngineFaultsTest, DeliveriesThatComeTwiceAreInstalledOnce) {
  LoopbackPlan plan;
  for (size_t delivery = 2; delivery < 200; delivery += 3) plan.Duplicate(delivery);
  Begin(plan);
  engine_->StartBulk();
  Fault(500);
  Fault(501);
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  ExpectEveryPageFilledOnce();
}

TEST_F(EngineFaultsTest, DiscardsAloneCompleteIt) {
  Begin();
  EXPECT_EQ(engine_->WaitComplete(milliseconds(0)), Engine::Wait::kTimeout);
  Discard(0, kPages);
  EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  EXPECT_THAT(FilledPages(), testing::IsEmpty());
}

TEST_F(EngineFaultsTest, PageThatComesAfterItsDiscardIsDroppedAndItsWaiterLooksAgain) {
  Begin();
  Fault(5);
  Discard(5, 1);
  device_.TakeCalls();
  ASSERT_TRUE(transport_->DeliverOne());
  EXPECT_THAT(device_.TakeCalls(), testing::ElementsAre(Wake(5)));
  EXPECT_EQ(engine_->Figures().faults.served, 1u);
  Fault(5);
  EXPECT_THAT(device_.TakeCalls(),
              testing::ElementsAre(FakeFaultDevice::Record{Call::kZero, {{5}, 1}, {}}));
}

TEST_F(EngineFaultsTest, PageThatTheBulkBroughtFirstIsServedOnceAndItsReplyDropped) {
  Begin(LoopbackPlan().Deliver(LoopbackPlan::Order::kBulkFirst));
  engine_->StartBulk();
  ASSERT_TRUE(transport_->DeliverOne());  // the map: the first 128 pages are granted
  Fault(5);
  transport_->DeliverAll();
  const EngineFigures figures = engine_->Figures();
  EXPECT_EQ(figures.faults.faults, 1u);
  EXPECT_EQ(figures.faults.served, 1u);
  ExpectEveryPageFilledOnce();
}

TEST_F(EngineFaultsTest, CutLanesAreAnInterruptionAndNothingIsUnregistered) {
  Begin(LoopbackPlan().CutAfterDeliveries(3));
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(milliseconds(10)), Engine::Wait::kTimeout);
  ASSERT_TRUE(engine_->interruption().has_value());
  EXPECT_EQ(engine_->interruption()->cause.message, "page server: cut by the plan");
  EXPECT_EQ(engine_->Figures().interruptions, 1u);
  engine_->Stop();
  EXPECT_THAT(device_.TakeCalls(),
              Not(Contains(testing::Field(&FakeFaultDevice::Record::call, Call::kUnregister))));
}

TEST_F(EngineFaultsTest, WhereverItIsCutEveryPageIsFilledOnceAfterwards) {
  for (size_t deliveries = 0; deliveries < 60; ++deliveries) {
    SCOPED_TRACE(deliveries);
    Begin(LoopbackPlan().CutAfterDeliveries(deliveries));
    Fault(5);
    engine_->StartBulk();
    Fault(900);
    transport_->DeliverAll();
    EXPECT_TRUE(engine_->interruption().has_value());
    Fault(1000);  // while nobody can be asked
    transport_->Restore();
    EXPECT_FALSE(engine_->interruption().has_value());
    transport_->DeliverAll();
    ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
    EXPECT_EQ(engine_->Figures().faults.served, 3u);
    ExpectEveryPageFilledOnce();
    EXPECT_EQ(engine_->Figures().data_bytes, engine_->Figures().ram_bytes);
    engine_.reset();
    device_.TakeCalls();
  }
}

TEST_F(EngineFaultsTest, AfterACutTheGuestIsAskedForBeforeTheRestInTheOrderItWaits) {
  Begin(LoopbackPlan().CutAfterDeliveries(1));
  engine_->StartBulk();
  transport_->DeliverOne();
  Fault(900);
  Fault(700);
  transport_->DeliverAll();
  transport_->Restore();
  const auto asked = transport_->asked();
  ASSERT_GE(asked.size(), 3u);
  EXPECT_EQ(asked[0].range.first.value, 900u);
  EXPECT_EQ(asked[1].range.first.value, 700u);
  EXPECT_EQ(asked[2].kind, LoopbackTransport::Asked::Kind::kGrant);
}

TEST_F(EngineFaultsTest, BulkThatBeginsWhileTheSourceIsAwayBeginsWhenItIsBack) {
  Begin(LoopbackPlan().CutAfterDeliveries(0));
  Fault(5);
  transport_->DeliverAll();
  engine_->StartBulk();
  transport_->Restore();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  ExpectEveryPageFilledOnce();
}

TEST_F(EngineFaultsTest, FaultAfterTheCutKeepsWaiting) {
  Begin(LoopbackPlan().CutAfterDeliveries(1));
  engine_->StartBulk();
  transport_->DeliverAll();
  device_.TakeCalls();
  Fault(900);
  EXPECT_THAT(device_.TakeCalls(), testing::IsEmpty());  // neither zeros nor a wake
  EXPECT_EQ(engine_->Figures().faults.served, 0u);
}

TEST_F(EngineFaultsTest, HolesOfTheMapAreNeverAskedFor) {
  Begin();
  transport_->SetMap({{{0}, {{{100}, 50}, {{200}, 10}}, false}, {{0}, {{{400}, 1}}, true}});
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  const auto filled = FilledPages();
  EXPECT_EQ(filled.size(), 61u);
  EXPECT_THAT(filled, testing::Each(testing::AnyOf(testing::AllOf(testing::Ge(100), testing::Lt(150)),
                                                   testing::AllOf(testing::Ge(200), testing::Lt(210)),
                                                   400)));
  EXPECT_EQ(engine_->Figures().data_bytes, 61 * kPageBytes);
  EXPECT_EQ(engine_->Figures().present_bytes, 61 * kPageBytes);
}

TEST_F(EngineFaultsTest, WhoTakesUpFillsWhatIsMissingAndWakesWhoeverWaits) {
  std::vector<std::atomic<uint8_t>> bytes(kPages);
  {
    PageMap before(layout_, bytes);
    for (uint64_t page = 0; page < 4; ++page) before.Claim({{0}, {page}});
    before.Finish({{0}, {1}}, true);
    before.MarkWritten({{0}, {2}});
  }
  auto transport = std::make_unique<LoopbackTransport>(layout_);
  transport_ = transport.get();
  engine_.emplace(std::move(transport), device_, regions_,
                  EngineOptions{.page_bytes = bytes, .takes_up = true});
  ASSERT_TRUE(engine_->Start().ok());
  EXPECT_THAT(device_.TakeCalls(),
              testing::ElementsAre(FakeFaultDevice::Record{Call::kWake, {{0}, kPages}, {}}));
  engine_->StartBulk();
  EXPECT_TRUE(transport_->asked().empty()) << "there is no lane yet";
  transport_->Restore();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  std::vector<uint64_t> filled = FilledPages();
  std::sort(filled.begin(), filled.end());
  EXPECT_EQ(filled.size(), kPages - 2);
  EXPECT_THAT(filled, Not(Contains(testing::AnyOf(1u, 2u))));
}

TEST_F(EngineFaultsTest, EmptyMapIsComplete) {
  Begin();
  transport_->SetMap({{{0}, {}, true}});
  engine_->StartBulk();
  transport_->DeliverAll();
  EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
}

TEST_F(EngineFaultsTest, ProcessThatIsGoneIsAFailureFromEitherSide) {
  Begin();
  device_.Script(Call::kCopy, {{InstallOutcome::kProcessGone}});
  Fault(4);
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kFailed);
  EXPECT_THAT(engine_->failure()->message, HasSubstr("process is gone"));
  engine_.reset();

  Begin();
  device_.FailReads({ErrorCode::kUnavailable, "read events: the process is gone"});
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kFailed);
}

TEST_F(EngineFaultsTest, RefusedInstallIsAStallThatNamesItsCauseUntilItSucceeds) {
  Begin();
  device_.Script(Call::kCopy, std::vector<FakeFaultDevice::Scripted>(
                                  3, {InstallOutcome::kFailed, 0, ENOMEM}));
  Fault(4);
  ASSERT_TRUE(transport_->DeliverOne());
  ASSERT_TRUE(engine_->stall().has_value());
  EXPECT_THAT(engine_->stall()->cause.message, HasSubstr("install guest memory: Cannot allocate"));
  EXPECT_FALSE(engine_->failure().has_value());
  EXPECT_EQ(engine_->WaitComplete(milliseconds(0)), Engine::Wait::kTimeout);
  EXPECT_EQ(engine_->Figures().faults.served, 0u) << "the guest waits still";
  // It is requested again, and nothing else is.
  while (engine_->Figures().faults.served == 0) {
    for (const auto& asked : transport_->asked()) {
      EXPECT_EQ(asked.kind, LoopbackTransport::Asked::Kind::kRequest);
      EXPECT_EQ(asked.range.first.value, 4u);
    }
    transport_->DeliverOne();
  }
  while (engine_->stall().has_value()) std::this_thread::yield();
  engine_->StartBulk();
  transport_->DeliverAll();
  EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
}

TEST_F(EngineFaultsTest, BulkThatCouldNotBeInstalledComesAgainBehindWhatTheGuestWaitsFor) {
  Begin();
  device_.Script(Call::kCopy, std::vector<FakeFaultDevice::Scripted>(
                                  40, {InstallOutcome::kFailed, 0, ENOSPC}));
  Fault(900);
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_TRUE(engine_->stall().has_value());
  while (engine_->WaitComplete(milliseconds(0)) != Engine::Wait::kComplete) {
    const auto asked = transport_->asked();
    for (size_t i = 1; i < asked.size(); ++i) {
      EXPECT_FALSE(asked[i].kind == LoopbackTransport::Asked::Kind::kRequest &&
                   asked[0].kind == LoopbackTransport::Asked::Kind::kGrant)
          << "the bulk before the guest";
    }
    transport_->DeliverAll();
  }
  ExpectEveryPageHasCome();
  while (engine_->stall().has_value()) std::this_thread::yield();
  EXPECT_EQ(engine_->Figures().faults.served, 1u);
}

TEST_F(EngineFaultsTest, APageThatTheSourceCannotReadHoldsUpNothingElse) {
  Begin();
  transport_->SetUnreadable(5);
  engine_->StartBulk();
  Fault(5);
  while (engine_->Figures().missing_pages > 1) transport_->DeliverOne();
  ASSERT_TRUE(engine_->stall().has_value());
  EXPECT_THAT(engine_->stall()->cause.message, HasSubstr("page server: it cannot read"));
  EXPECT_EQ(engine_->WaitComplete(milliseconds(0)), Engine::Wait::kTimeout);
  EXPECT_EQ(engine_->Figures().faults.served, 0u);
  transport_->SetUnreadable(std::nullopt);
  while (engine_->WaitComplete(milliseconds(0)) != Engine::Wait::kComplete) transport_->DeliverOne();
  EXPECT_EQ(engine_->Figures().faults.served, 1u);
  ExpectEveryPageFilledOnce();
  while (engine_->stall().has_value()) std::this_thread::yield();
}

TEST_F(EngineFaultsTest, WhereEverythingFailsTheBulkWaitsForTheNextTry) {
  Begin();
  device_.Script(Call::kCopy, std::vector<FakeFaultDevice::Scripted>(
                                  100'000, {InstallOutcome::kFailed, 0, ENOMEM}));
  device_.Script(Call::kZero, std::vector<FakeFaultDevice::Scripted>(
                                  100'000, {InstallOutcome::kFailed, 0, ENOMEM}));
  engine_->StartBulk();
  transport_->DeliverAll();
  const auto tries = [this] { return device_.TakeCalls().size(); };
  EXPECT_LT(tries(), 200u) << "pages that could not be installed are not brought over and over";
  EXPECT_GT(engine_->Figures().missing_pages, kPages / 2);
}

TEST_F(EngineFaultsTest, AFaultThatNeedsNothingFromTheSourceIsAnsweredLaterIfItCannotBeNow) {
  Begin();
  Discard(5, 1);
  device_.Script(Call::kZero, {{InstallOutcome::kFailed, 0, ENOMEM}});
  device_.TakeCalls();
  Fault(5);
  ASSERT_TRUE(engine_->stall().has_value());
  EXPECT_THAT(engine_->stall()->cause.message, HasSubstr("map guest memory: Cannot allocate"));
  std::vector<FakeFaultDevice::Record> calls;
  while (calls.size() < 2) {
    for (const auto& call : device_.TakeCalls()) calls.push_back(call);
  }
  EXPECT_EQ(calls[0].call, Call::kZero);
  EXPECT_EQ(calls[1], Wake(5));
  while (engine_->stall().has_value()) std::this_thread::yield();
}

TEST_F(EngineFaultsTest, StopEndsAWaitThatIsNotComplete) {
  Begin();
  engine_->Stop();
  EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kStopped);
  engine_->Stop();
}

}  // namespace
}  // namespace postcopy
