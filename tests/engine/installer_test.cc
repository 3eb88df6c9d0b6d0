#include "engine/installer.h"

#include <cerrno>

#include "gmock/gmock.h"
#include "tests/engine/fake_fault_device.h"

namespace postcopy {
namespace {

using Call = FakeFaultDevice::Call;
using testing::ElementsAre;
using testing::IsEmpty;

constexpr uint64_t kPages = 64;
constexpr auto kInstalled = InstallOutcome::kInstalled;
constexpr auto kAlreadyPresent = InstallOutcome::kAlreadyPresent;
constexpr auto kRetry = InstallOutcome::kRetry;
constexpr auto kNotFilled = InstallOutcome::kNotFilled;
constexpr auto kRangeGone = InstallOutcome::kRangeGone;

FakeFaultDevice::Record Did(Call call, uint64_t first, uint64_t pages, int first_byte = 0) {
  return {call, {{first}, pages}, static_cast<std::byte>(first_byte)};
}

class SeenDemand final : public DemandObserver {
 public:
  void OnDemandServed(PageAddress page) override { pages.push_back(page.page.value); }
  std::vector<uint64_t> pages;
};

// One region of 64 pages, anonymous or in a file.
class InstallerTest : public testing::Test {
 protected:
  explicit InstallerTest(int ram_file = -1)
      : regions_{{0x10000000, kPages * kPageBytes, ram_file, 0}} {}

  // Content whose first byte of each page is 0x10 + the page's number.
  Installer::Outcome InstallContent(uint64_t first, uint64_t pages) {
    std::vector<std::byte> content(pages * kPageBytes);
    for (uint64_t i = 0; i < pages; ++i) {
      content[i * kPageBytes] = static_cast<std::byte>(0x10 + first + i);
    }
    return installer_.Install({0}, {{first}, pages}, content);
  }
  Installer::Outcome InstallZeros(uint64_t first, uint64_t pages) {
    return installer_.Install({0}, {{first}, pages}, {});
  }
  PageState StateOf(uint64_t page) { return map_.StateOf({{0}, {page}}); }
  void ExpectStates(uint64_t first, uint64_t pages, PageState state) {
    for (uint64_t page = first; page < first + pages; ++page) {
      EXPECT_EQ(StateOf(page), state) << "page " << page;
    }
  }

  FakeFaultDevice device_;
  PageMap map_{MemoryLayout{{{"ram", kPages * kPageBytes}}}};
  const std::vector<MappedRegion> regions_;
  SeenDemand demand_;
  Installer installer_{device_, map_, regions_, demand_};
};
using AnonymousTest = InstallerTest;

class FileTest : public InstallerTest {
 protected:
  FileTest() : InstallerTest(100) {}
};

TEST_F(AnonymousTest, ContentIsCopiedInOneCallAndNobodyIsWokenTwice) {
  EXPECT_EQ(InstallContent(4, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kCopy, 4, 8, 0x14)));
  ExpectStates(4, 8, PageState::kPresent);
  EXPECT_EQ(map_.outstanding_pages(), kPages - 8);
}

TEST_F(AnonymousTest, ZerosAreMadeInOneCall) {
  EXPECT_EQ(InstallZeros(4, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kZero, 4, 8)));
}

TEST_F(AnonymousTest, PagesThatAreNotMissingAreSkippedAndContentStaysInStep) {
  map_.Claim({{0}, {2}});                // another thread fills it
  map_.Discard({0}, {{5}, 2});           // the guest gave them up
  EXPECT_EQ(InstallContent(0, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kCopy, 0, 2, 0x10), Did(Call::kCopy, 3, 2, 0x13),
                          Did(Call::kCopy, 7, 1, 0x17)));
  EXPECT_EQ(StateOf(2), PageState::kFilling);
  EXPECT_EQ(StateOf(5), PageState::kDiscarded);
}

TEST_F(AnonymousTest, NothingMissingCallsNothing) {
  map_.Discard({0}, {{0}, 8});
  EXPECT_EQ(InstallContent(0, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(), IsEmpty());
}

TEST_F(AnonymousTest, RetryWithProgressGoesOnWithTheRest) {
  device_.Script(Call::kCopy, {{kRetry, 3}, {kRetry, 0}, {kRetry, 0}, {kRetry, 4}});
  EXPECT_EQ(InstallContent(0, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kCopy, 0, 8, 0x10), Did(Call::kCopy, 3, 5, 0x13),
                          Did(Call::kCopy, 3, 5, 0x13), Did(Call::kCopy, 3, 5, 0x13),
                          Did(Call::kCopy, 7, 1, 0x17)));
  ExpectStates(0, 8, PageState::kPresent);
}

TEST_F(AnonymousTest, PageThatSomebodyElseInstalledIsWokenAndPassed) {
  device_.Script(Call::kCopy, {{kAlreadyPresent, 2}, {kAlreadyPresent, 0}});
  EXPECT_EQ(InstallContent(0, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kCopy, 0, 8, 0x10), Did(Call::kWake, 2, 1),
                          Did(Call::kCopy, 3, 5, 0x13), Did(Call::kWake, 3, 1),
                          Did(Call::kCopy, 4, 4, 0x14)));
  ExpectStates(0, 8, PageState::kPresent);
}

TEST_F(FileTest, ContentIsWrittenThenMapped) {
  EXPECT_EQ(InstallContent(4, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kWriteFile, 4, 8, 0x14), Did(Call::kContinue, 4, 8)));
  ExpectStates(4, 8, PageState::kPresent);
}

TEST_F(FileTest, BatchThatMeetsAPresentPageGoesOnBehindIt) {
  device_.Script(Call::kContinue, {{kAlreadyPresent, 3}});
  EXPECT_EQ(InstallContent(0, 8), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kWriteFile, 0, 8, 0x10), Did(Call::kContinue, 0, 8),
                          Did(Call::kWake, 3, 1), Did(Call::kContinue, 4, 4)));
  ExpectStates(0, 8, PageState::kPresent);
}

TEST_F(FileTest, PageWhoseContentWasGivenUpMeanwhileIsDiscardedAndItsWaiterLooksAgain) {
  device_.Script(Call::kContinue, {{kNotFilled, 2}});
  EXPECT_EQ(InstallContent(0, 4), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kWriteFile, 0, 4, 0x10), Did(Call::kContinue, 0, 4),
                          Did(Call::kWake, 2, 1), Did(Call::kContinue, 3, 1)));
  EXPECT_EQ(StateOf(2), PageState::kDiscarded);
  EXPECT_EQ(StateOf(3), PageState::kPresent);
}

TEST_F(FileTest, ZerosMapAllocatedPagesAndMakeTheOthersOneByOne) {
  device_.Script(Call::kContinue, {{kNotFilled, 2}, {kNotFilled, 0}});
  EXPECT_EQ(InstallZeros(0, 6), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kContinue, 0, 6), Did(Call::kZero, 2, 1),
                          Did(Call::kContinue, 3, 3), Did(Call::kZero, 3, 1),
                          Did(Call::kContinue, 4, 2)));
  ExpectStates(0, 6, PageState::kPresent);
}

TEST_F(FileTest, ZeroPageThatIsInThePageCacheAfterAllIsMapped) {
  device_.Script(Call::kContinue, {{kNotFilled, 0}});
  device_.Script(Call::kZero, {{kAlreadyPresent, 0}});
  EXPECT_EQ(InstallZeros(0, 2), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kContinue, 0, 2), Did(Call::kZero, 0, 1),
                          Did(Call::kContinue, 0, 2)));
}

TEST_F(FileTest, OfARangeThatIsGoneEachPageIsTried) {
  device_.Script(Call::kContinue,
                 {{kRangeGone, 0}, {kInstalled, 1}, {kRangeGone, 0}, {kInstalled, 1}});
  EXPECT_EQ(InstallContent(0, 4), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kWriteFile, 0, 4, 0x10), Did(Call::kContinue, 0, 4),
                          Did(Call::kContinue, 0, 1), Did(Call::kContinue, 1, 1),
                          Did(Call::kWake, 1, 1), Did(Call::kContinue, 2, 1),
                          Did(Call::kContinue, 3, 1)));
  EXPECT_EQ(StateOf(0), PageState::kPresent);
  EXPECT_EQ(StateOf(1), PageState::kDiscarded);
  ExpectStates(2, 2, PageState::kPresent);
  EXPECT_EQ(map_.outstanding_pages(), kPages - 4);
}

TEST_F(AnonymousTest, ContentOfARangeThatIsGoneIsNotDroppedForOnePage) {
  device_.Script(Call::kCopy, {{kRangeGone, 0}, {kRangeGone, 0}});
  EXPECT_EQ(InstallContent(4, 3), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kCopy, 4, 3, 0x14), Did(Call::kCopy, 4, 1, 0x14),
                          Did(Call::kWake, 4, 1), Did(Call::kCopy, 5, 1, 0x15),
                          Did(Call::kCopy, 6, 1, 0x16)));
  EXPECT_EQ(StateOf(4), PageState::kDiscarded);
  ExpectStates(5, 2, PageState::kPresent);
}

TEST_F(AnonymousTest, ZerosOfARangeThatIsGoneAreMadePageByPage) {
  device_.Script(Call::kZero, {{kRangeGone, 0}, {kRangeGone, 0}});
  EXPECT_EQ(InstallZeros(4, 3), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kZero, 4, 3), Did(Call::kZero, 4, 1), Did(Call::kWake, 4, 1),
                          Did(Call::kZero, 5, 1), Did(Call::kZero, 6, 1)));
}

TEST_F(AnonymousTest, MisuseIsAFailureAndNoPageThatIsGone) {
  device_.Script(Call::kCopy, {{InstallOutcome::kFailed, 0, EINVAL}});
  EXPECT_EQ(InstallContent(4, 2), Installer::Outcome::kFailed);
  ExpectStates(4, 2, PageState::kMissing);
}

TEST_F(FileTest, WriteThatFailsMapsNothingAndLeavesThePagesMissing) {
  device_.Script(Call::kWriteFile, {{kInstalled, 0, ENOSPC}});
  EXPECT_EQ(InstallContent(0, 4), Installer::Outcome::kFailed);
  EXPECT_EQ(installer_.error(), ENOSPC);
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kWriteFile, 0, 4, 0x10)));
  ExpectStates(0, 4, PageState::kMissing);
}

TEST_F(FileTest, ProcessThatIsGoneLeavesTheRestMissing) {
  device_.Script(Call::kContinue, {{InstallOutcome::kProcessGone, 1}});
  EXPECT_EQ(InstallContent(0, 4), Installer::Outcome::kVmGone);
  EXPECT_EQ(StateOf(0), PageState::kPresent);
  ExpectStates(1, 3, PageState::kMissing);
}

TEST_F(FileTest, UnexpectedErrorIsToldAndLeavesTheRestMissing) {
  device_.Script(Call::kContinue, {{InstallOutcome::kFailed, 2, ENOMEM}});
  EXPECT_EQ(InstallContent(0, 4), Installer::Outcome::kFailed);
  EXPECT_EQ(installer_.error(), ENOMEM);
  ExpectStates(0, 2, PageState::kPresent);
  ExpectStates(2, 2, PageState::kMissing);
}

TEST_F(AnonymousTest, FaultThatCameDuringTheFillIsWokenOnceMore) {
  device_.During(Call::kCopy, [this] { map_.MarkDemanded({{0}, {5}}); });
  EXPECT_EQ(InstallContent(4, 4), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(),
              ElementsAre(Did(Call::kCopy, 4, 4, 0x14), Did(Call::kWake, 5, 1)));
  EXPECT_THAT(demand_.pages, IsEmpty());
}

TEST_F(AnonymousTest, DemandedPageIsToldOnceAndTheKernelsOwnWakeIsEnough) {
  map_.MarkDemanded({{0}, {5}});
  EXPECT_EQ(InstallContent(4, 4), Installer::Outcome::kDone);
  EXPECT_EQ(InstallContent(4, 4), Installer::Outcome::kDone);
  EXPECT_THAT(device_.TakeCalls(), ElementsAre(Did(Call::kCopy, 4, 4, 0x14)));
  EXPECT_THAT(demand_.pages, ElementsAre(5));
}

TEST_F(FileTest, DemandedPageThatWasGivenUpIsServedToo) {
  map_.MarkDemanded({{0}, {0}});
  device_.Script(Call::kContinue, {{kNotFilled, 0}});
  InstallContent(0, 1);
  EXPECT_THAT(demand_.pages, ElementsAre(0));
}

TEST_F(AnonymousTest, StopEndsAnEndlessRetryAndLeavesThePagesMissing) {
  device_.Script(Call::kCopy, std::vector<FakeFaultDevice::Scripted>(5, {kRetry, 0}));
  int tries = 0;
  device_.During(Call::kCopy, [&] {
    if (++tries == 3) installer_.Stop();
  });
  EXPECT_EQ(InstallContent(0, 4), Installer::Outcome::kDone);
  EXPECT_EQ(tries, 3);
  ExpectStates(0, 4, PageState::kMissing);
}

}  // namespace
}  // namespace postcopy
