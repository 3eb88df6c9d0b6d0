#include "engine/fault_reader.h"

#include "gmock/gmock.h"
#include "tests/engine/fake_fault_device.h"
#include "tests/transport/loopback_transport.h"

namespace postcopy {
namespace {

using Call = FakeFaultDevice::Call;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kPages = 512;

FakeFaultDevice::Record Did(Call call, uint64_t page, uint64_t pages = 1) {
  return {call, {{page}, pages}, {}};
}

// The reader on the test's own thread: it runs until every batch has been handled.
class FaultReaderTest : public testing::Test {
 protected:
  void Run() {
    device_.OnIdle([this] { reader_->Stop(); });
    reader_.emplace(device_, map_, regions_, fetcher_, precacher_, &trace_);
    result_ = reader_->Run();
  }
  void RunBatch(std::vector<FaultEvent> events) {
    device_.FeedBatch(std::move(events));
    Run();
  }
  void MakePresent(uint64_t page) {
    map_.Claim({{0}, {page}});
    map_.Finish({{0}, {page}}, true);
  }
  std::vector<uint64_t> Requested() {
    std::vector<uint64_t> pages;
    for (const auto& asked : transport_.asked()) pages.push_back(asked.range.first.value);
    return pages;
  }
  FaultEvent Missing(uint64_t page) { return FakeFaultDevice::Missing(regions_[0], page); }
  FaultEvent Minor(uint64_t page) { return FakeFaultDevice::Minor(regions_[0], page); }
  FaultEvent Remove(uint64_t first, uint64_t pages) {
    return FakeFaultDevice::Remove(regions_[0], {{first}, pages});
  }

  const MemoryLayout layout_{{{"ram", kPages * kPageBytes}, {"vga", 16 * kPageBytes}}};
  // Neighbours in the address space; the first is backed by a file.
  const std::vector<MappedRegion> regions_{
      {0x10000000, kPages * kPageBytes, 100, 0},
      {0x10000000 + kPages * kPageBytes, 16 * kPageBytes, -1, 0}};
  FakeFaultDevice device_;
  LoopbackTransport transport_{layout_};
  FaultTrace trace_{16};
  PageMap map_{layout_};
  Fetcher fetcher_{transport_};
  Precacher precacher_{map_, fetcher_, transport_};
  std::optional<FaultReader> reader_;
  Result<void> result_;
};

TEST_F(FaultReaderTest, MissingPageIsAskedForAndNothingIsInstalled) {
  RunBatch({Missing(7)});
  EXPECT_TRUE(result_.ok());
  EXPECT_THAT(Requested(), ElementsAre(7));
  EXPECT_THAT(device_.TakeCalls(), IsEmpty());
  EXPECT_EQ(fetcher_.Figures().faults, 1u);
}

TEST_F(FaultReaderTest, MinorFaultOnAMissingPageIsAskedForToo) {
  map_.MarkAllocated({0}, {{0}, kPages});
  RunBatch({Minor(7)});
  EXPECT_THAT(Requested(), ElementsAre(7));
}

TEST_F(FaultReaderTest, FaultsThatAreNotAskedForAreTracedByKind) {
  MakePresent(1);
  map_.Discard({0}, {{2}, 1});
  RunBatch({Missing(7), Missing(7), Minor(1), Missing(2)});
  std::vector<std::pair<uint64_t, FaultKind>> traced;
  for (const FaultRecord& fault : trace_.Faults()) {
    traced.emplace_back(fault.page.page.value, fault.kind);
    EXPECT_EQ(fault.wait.has_value(), fault.kind != FaultKind::kJoined);
  }
  EXPECT_THAT(traced, testing::UnorderedElementsAre(testing::Pair(7, FaultKind::kJoined),
                                                    testing::Pair(1, FaultKind::kPresent),
                                                    testing::Pair(2, FaultKind::kZero)));
}

TEST_F(FaultReaderTest, FaultsOnOnePageAskOnce) {
  device_.FeedBatch({Missing(7), Missing(7), Missing(8)});
  device_.FeedBatch({Missing(7)});
  Run();
  EXPECT_THAT(Requested(), ElementsAre(7, 8));
}

TEST_F(FaultReaderTest, FaultDuringAFillIsLeftToTheFiller) {
  map_.Claim({{0}, {7}});
  RunBatch({Missing(7)});
  EXPECT_THAT(Requested(), IsEmpty());
  EXPECT_THAT(device_.TakeCalls(), IsEmpty());
  EXPECT_TRUE(map_.Finish({{0}, {7}}, true).waited);
}

TEST_F(FaultReaderTest, DiscardsComeBeforeTheFaultsOfTheSameBatch) {
  RunBatch({Missing(7), Remove(7, 1)});
  EXPECT_THAT(Requested(), IsEmpty());
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kZero, 7)));
  EXPECT_EQ(map_.StateOf({{0}, {7}}), PageState::kPresent);
}

TEST_F(FaultReaderTest, DiscardBeyondOneReadOfEventsStillComesFirst) {
  std::vector<FaultEvent> events;
  for (uint64_t page = 0; page < 200; ++page) events.push_back(Missing(page));
  events.push_back(Remove(0, 200));
  RunBatch(events);
  EXPECT_THAT(Requested(), IsEmpty());
}

TEST_F(FaultReaderTest, DiscardIsCutToEachRegionItTouches) {
  FaultEvent event = Remove(kPages - 2, 2);
  event.end_address += 3 * kPageBytes;
  RunBatch({event});
  EXPECT_EQ(map_.StateOf({{0}, {kPages - 3}}), PageState::kMissing);
  EXPECT_EQ(map_.StateOf({{0}, {kPages - 1}}), PageState::kDiscarded);
  EXPECT_EQ(map_.StateOf({{1}, {2}}), PageState::kDiscarded);
  EXPECT_EQ(map_.StateOf({{1}, {3}}), PageState::kMissing);
}

TEST_F(FaultReaderTest, MissingFaultOnAPageThatWasAllocatedIsADiscard) {
  map_.MarkAllocated({0}, {{7}, 1});
  RunBatch({Missing(7)});
  EXPECT_THAT(Requested(), IsEmpty());
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kZero, 7)));
  EXPECT_EQ(map_.discarded_pages(), 1u);
}

TEST_F(FaultReaderTest, MinorFaultOnAPresentPageIsMappedAtOnce) {
  MakePresent(7);
  RunBatch({Minor(7)});
  EXPECT_THAT(Requested(), IsEmpty());
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kContinue, 7)));
}

TEST_F(FaultReaderTest, PresentPageWhoseContentIsGoneReadsAsZero) {
  MakePresent(7);
  device_.Script(Call::kContinue, {{InstallOutcome::kNotFilled}});
  RunBatch({Minor(7)});
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kContinue, 7), Did(Call::kZero, 7)));
}

TEST_F(FaultReaderTest, MissingFaultOnAPageThatIsInThePageCacheByNowIsMapped) {
  MakePresent(7);
  device_.Script(Call::kZero, {{InstallOutcome::kAlreadyPresent}});
  RunBatch({Missing(7)});
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kZero, 7), Did(Call::kContinue, 7)));
}

TEST_F(FaultReaderTest, WhoeverWaitsOnAPageThatIsMappedByNowIsWoken) {
  MakePresent(7);
  device_.Script(Call::kContinue, {{InstallOutcome::kAlreadyPresent}});
  RunBatch({Minor(7)});
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kContinue, 7), Did(Call::kWake, 7)));
}

TEST_F(FaultReaderTest, InstallThatMustBeTriedAgainIsTriedOnceAPassAfterTheEventsWereRead) {
  map_.Discard({0}, {{7}, 1});
  device_.Script(Call::kZero, std::vector<FakeFaultDevice::Scripted>(3, {InstallOutcome::kRetry}));
  RunBatch({Missing(7)});
  // Between two tries the events are always read: an unread discard is why the kernel refuses.
  bool read_since = false;
  int tries = 0;
  for (const auto& record : device_.TakeCallsAndReads()) {
    if (record.call == Call::kRead) {
      read_since = true;
    } else {
      EXPECT_EQ(record, Did(Call::kZero, 7));
      EXPECT_TRUE(read_since);
      read_since = false;
      ++tries;
    }
  }
  EXPECT_EQ(tries, 4);
}

TEST_F(FaultReaderTest, NewEventsAreHandledWhileAnInstallWaitsToBeTriedAgain) {
  map_.Discard({0}, {{7}, 1});
  device_.Script(Call::kZero, {{InstallOutcome::kRetry}});
  device_.FeedBatch({Missing(7)});
  device_.FeedBatch({Missing(9)});
  Run();
  EXPECT_THAT(Requested(), ElementsAre(9));
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kZero, 7), Did(Call::kZero, 7)));
}

TEST_F(FaultReaderTest, FaultOutsideEveryRegionIsIgnored) {
  RunBatch({{FaultEvent::Kind::kMissing, 0x5000, 0, false},
            {FaultEvent::Kind::kMissing, regions_[1].address + regions_[1].size_bytes, 0, false},
            {FaultEvent::Kind::kOther, regions_[0].address, 0, false}});
  EXPECT_THAT(Requested(), IsEmpty());
  EXPECT_THAT(device_.TakeCalls(), IsEmpty());
}

TEST_F(FaultReaderTest, FaultMakesItsSurroundingsTheNextBulk) {
  RunBatch({Missing(100)});
  precacher_.Start();
  const auto asked = transport_.asked();
  ASSERT_GE(asked.size(), 2u);
  EXPECT_EQ(asked[1].kind, LoopbackTransport::Asked::Kind::kGrant);
  EXPECT_EQ(asked[1].range.first.value, 101u);
}

TEST_F(FaultReaderTest, EndOfTheProcessEndsTheReaderWithItsCause) {
  device_.FailReads({ErrorCode::kUnavailable, "read events: the process is gone"});
  Run();
  ASSERT_FALSE(result_.ok());
  EXPECT_EQ(result_.error().message, "read events: the process is gone");
}

}  // namespace
}  // namespace postcopy
