// Regions whose pages the kernel takes whole only: the engine over a fake device and a loopback
// transport, with pages of 64 KiB.
#include <thread>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "platform/ram_file.h"
#include "tests/engine/fake_fault_device.h"
#include "tests/transport/loopback_transport.h"

namespace postcopy {
namespace {

using Call = FakeFaultDevice::Call;
using std::chrono::seconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t kPages = 1024;
constexpr uint64_t kInOne = 16;

class HugePagesTest : public testing::Test {
 protected:
  void Begin(LoopbackPlan plan = {}) {
    auto transport = std::make_unique<LoopbackTransport>(layout_, 2, std::move(plan));
    transport_ = transport.get();
    engine_.emplace(std::move(transport), device_, regions_);
    ASSERT_TRUE(engine_->Start().ok());
  }
  void Feed(const FaultEvent& event) {
    device_.FeedBatch({event});
    device_.AwaitIdle();
  }
  void Fault(uint64_t page) { Feed(FakeFaultDevice::Missing(regions_[0], page)); }
  // The huge pages that were copied, by their first small page, in order.
  std::vector<uint64_t> Copied() {
    std::vector<uint64_t> firsts;
    for (const auto& record : device_.TakeCalls()) {
      EXPECT_NE(record.call, Call::kContinue);
      EXPECT_NE(record.call, Call::kWriteFile);
      if (record.call != Call::kCopy) continue;
      EXPECT_EQ(record.pages.count_pages, kInOne);
      EXPECT_EQ(record.first_byte, static_cast<std::byte>(record.pages.first.value));
      firsts.push_back(record.pages.first.value);
    }
    return firsts;
  }
  std::vector<uint64_t> AllOnce() {
    std::vector<uint64_t> firsts;
    for (uint64_t page = 0; page < kPages; page += kInOne) firsts.push_back(page);
    return firsts;
  }

  const MemoryLayout layout_{{{"ram", kPages * kPageBytes}}};
  const std::vector<MappedRegion> regions_{
      {0x10000000, kPages * kPageBytes, -1, 0, kInOne * kPageBytes}};
  FakeFaultDevice device_;
  std::optional<Engine> engine_;
  LoopbackTransport* transport_ = nullptr;
};

TEST_F(HugePagesTest, TheBulkInstallsThemWholeAndOnce) {
  Begin();
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  EXPECT_THAT(Copied(), testing::UnorderedElementsAreArray(AllOnce()));
  EXPECT_EQ(engine_->Figures().present_bytes, kPages * kPageBytes);
}

TEST_F(HugePagesTest, AFaultAsksForAllOfOneAndIsCountedOnce) {
  Begin();
  Fault(2 * kInOne + 5);
  EXPECT_EQ(transport_->asked().size(), kInOne);
  Fault(2 * kInOne);  // another vCPU
  EXPECT_EQ(transport_->asked().size(), kInOne);
  for (uint64_t i = 1; i < kInOne; ++i) transport_->DeliverOne();
  EXPECT_THAT(Copied(), IsEmpty());
  EXPECT_EQ(engine_->Figures().faults.served, 0u);
  transport_->DeliverOne();
  EXPECT_THAT(Copied(), ElementsAre(2 * kInOne));
  EXPECT_EQ(engine_->Figures().faults.faults, 1u);
  EXPECT_EQ(engine_->Figures().faults.served, 1u);
}

TEST_F(HugePagesTest, DemandAndBulkTogetherInstallEachOnce) {
  for (const auto order : {LoopbackPlan::Order::kAsAsked, LoopbackPlan::Order::kNewestFirst,
                           LoopbackPlan::Order::kBulkFirst}) {
    Begin(LoopbackPlan().Deliver(order).Duplicate(3).Duplicate(40));
    engine_->StartBulk();
    for (uint64_t page = 5; page < kPages; page += 97) {
      Fault(page);
      for (int i = 0; i < 7; ++i) transport_->DeliverOne();
    }
    transport_->DeliverAll();
    ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
    EXPECT_THAT(Copied(), testing::UnorderedElementsAreArray(AllOnce()));
    const FaultFigures faults = engine_->Figures().faults;
    EXPECT_EQ(faults.served, faults.faults);
    engine_.reset();
  }
}

TEST_F(HugePagesTest, OneWithDataIsFetchedWithItsHoles) {
  Begin();
  transport_->SetMap({{{0}, {{{3}, 2}, {{7}, 1}, {{kInOne + 2}, 30}}, true}});
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  EXPECT_THAT(Copied(), testing::UnorderedElementsAre(0, kInOne, 2 * kInOne));
  EXPECT_EQ(engine_->Figures().data_bytes, 3 * kInOne * kPageBytes);
  EXPECT_EQ(engine_->Figures().present_bytes, 3 * kInOne * kPageBytes);
}

TEST_F(HugePagesTest, OneThatIsAHoleButHasBegunToArriveBecomesWhole) {
  Begin(LoopbackPlan().Deliver(LoopbackPlan::Order::kNewestFirst));  // the map before the rest
  Fault(kInOne);
  for (int i = 0; i < 5; ++i) transport_->DeliverOne();
  transport_->SetMap({{{0}, {}, true}});
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  EXPECT_THAT(Copied(), ElementsAre(kInOne));
  EXPECT_EQ(engine_->Figures().data_bytes, kInOne * kPageBytes);
  EXPECT_EQ(engine_->Figures().present_bytes, kInOne * kPageBytes);
}

TEST_F(HugePagesTest, AnAnswerForAHoleWakesWhoWaitsForTheWholePage) {
  Begin();
  Fault(kInOne + 3);
  transport_->SetMap({{{0}, {}, true}});
  transport_->sink().OnMap({{0}, {}, true});
  transport_->DeliverOne();
  EXPECT_THAT(device_.TakeCalls(),
              Contains(FakeFaultDevice::Record{Call::kWake, {{kInOne}, kInOne}, {}}));
}

TEST_F(HugePagesTest, AMapOutOfOrderIsRefusedWithinOneToo) {
  Begin();
  transport_->SetMap({{{0}, {{{7}, 1}, {{3}, 2}}, true}});
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kFailed);
  EXPECT_THAT(engine_->failure()->message, HasSubstr("out of order"));
}

TEST_F(HugePagesTest, OneThatIsGivenUpHalfWayArrivesAllTheSame) {
  Begin();
  Fault(0);
  for (int i = 0; i < 5; ++i) transport_->DeliverOne();
  Feed(FakeFaultDevice::Remove(regions_[0], {{0}, kInOne}));
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kComplete);
  EXPECT_THAT(Copied(), testing::UnorderedElementsAreArray(AllOnce()));
}

TEST_F(HugePagesTest, OneThatIsGivenUpLaterReadsAsZero) {
  Begin();
  engine_->StartBulk();
  transport_->DeliverAll();
  device_.TakeCalls();
  Feed(FakeFaultDevice::Remove(regions_[0], {{kInOne}, kInOne}));
  Fault(kInOne + 3);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(FakeFaultDevice::Record{Call::kZero, {{kInOne}, kInOne}, {}}));
}

TEST_F(HugePagesTest, OneThatIsNotWholeIsPoisonedWhole) {
  Begin(LoopbackPlan().CutAfterDeliveries(5 + kInOne));
  Fault(0);
  for (uint64_t i = 0; i < kInOne; ++i) transport_->DeliverOne();
  Fault(2 * kInOne);
  transport_->DeliverAll();
  EXPECT_THAT(Copied(), ElementsAre(0));
  const auto poisoned = engine_->PoisonMissing();
  ASSERT_TRUE(poisoned.ok()) << poisoned.error().message;
  EXPECT_EQ(*poisoned, kPages - kInOne);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(FakeFaultDevice::Record{Call::kPoison, {{kInOne}, kPages - kInOne}, {}}));
}

TEST_F(HugePagesTest, OneThatCouldNotBeInstalledIsBroughtAgainWhole) {
  for (const bool demanded : {true, false}) {
    SCOPED_TRACE(demanded);
    Begin();
    device_.Script(Call::kCopy, std::vector<FakeFaultDevice::Scripted>(
                                    2, {InstallOutcome::kFailed, 0, ENOMEM}));
    if (demanded) {
      Fault(0);
    } else {
      engine_->StartBulk();
    }
    while (!engine_->stall().has_value()) ASSERT_TRUE(transport_->DeliverOne());
    EXPECT_THAT(engine_->stall()->cause.message, HasSubstr("install guest memory: Cannot allocate"));
    if (demanded) {
      while (engine_->Figures().faults.served == 0) transport_->DeliverAll();
      engine_->StartBulk();
    }
    while (engine_->WaitComplete(std::chrono::milliseconds(0)) != Engine::Wait::kComplete) {
      transport_->DeliverAll();
    }
    while (engine_->stall().has_value()) std::this_thread::yield();
    engine_.reset();
    device_.TakeCalls();
  }
}

UniqueFd MakeHugeFile(uint64_t size_bytes) {
  UniqueFd file(memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  if (file.valid() && ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) file.Reset();
  return file;
}

TEST(MappedRegionTest, AFileOfHugePagesMakesARegionWithThem) {
  const UniqueFd file = MakeHugeFile(4 << 20);
  if (!file.valid()) GTEST_SKIP() << "missing: huge pages of 2 MiB in this kernel";
  const auto region = MakeMappedRegion(0x40000000, 4 << 20, file.get(), 0);
  ASSERT_TRUE(region.ok()) << region.error().message;
  EXPECT_TRUE(region->has_huge_pages());
  EXPECT_FALSE(region->file_backed());
  EXPECT_EQ(region->page_bytes, uint64_t{2} << 20);
  EXPECT_EQ(region->WholePages({{513}, 2}), (PageRange{{512}, 512}));
  EXPECT_EQ(region->WholePages({{511}, 2}), (PageRange{{0}, 1024}));
  const auto crooked = MakeMappedRegion(0x40001000, 2 << 20, file.get(), 0);
  ASSERT_FALSE(crooked.ok());
  EXPECT_EQ(crooked.error().code, ErrorCode::kInvalidArgument);
}

TEST(MappedRegionTest, AnyOtherFileIsFilledThroughItsPageCache) {
  const UniqueFd file(memfd_create("ram", MFD_CLOEXEC));
  const auto region = MakeMappedRegion(0x40001000, 1 << 20, file.get(), 4096);
  ASSERT_TRUE(region.ok());
  EXPECT_TRUE(region->file_backed());
  EXPECT_EQ(region->file_offset, 4096u);
  EXPECT_FALSE(region->has_huge_pages());
  EXPECT_EQ(region->WholePages({{5}, 2}), (PageRange{{5}, 2}));
  EXPECT_FALSE(MakeMappedRegion(0x40001000, 1 << 20, -1, 0)->file_backed());
}

}  // namespace
}  // namespace postcopy
