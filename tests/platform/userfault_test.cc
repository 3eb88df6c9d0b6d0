// What the kernel really answers: the facts that the engine is built on, on this kernel.
#include "platform/userfault.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "platform/ram_file.h"
#include "tests/platform/sigbus.h"

namespace postcopy {
namespace {

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 64;
constexpr uint64_t kBytes = kPages * kPage;

class UserfaultTest : public testing::Test {
 protected:
  ~UserfaultTest() override {
    if (memory_ != nullptr) munmap(memory_, kBytes);
  }
  void MapAnonymous() { Map(-1, MAP_PRIVATE | MAP_ANONYMOUS, FaultMode::kMissing); }
  void MapFile() {
    file_ = UniqueFd(memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file_.get(), kBytes), 0);
    Map(file_.get(), MAP_SHARED, FaultMode::kMissingAndMinor);
  }
  void Map(int fd, int flags, FaultMode mode) {
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, flags, fd, 0);
    ASSERT_NE(memory_, MAP_FAILED);
    ASSERT_EQ(madvise(memory_, kBytes, MADV_NOHUGEPAGE), 0);
    auto userfault = CreateUserfault(-1);
    ASSERT_TRUE(userfault.ok()) << userfault.error().message;
    userfault_ = std::move(*userfault);
    ASSERT_TRUE(RegisterFaults(userfault_.get(), At(0), kBytes, mode).ok());
  }
  uint64_t At(uint64_t page) const { return reinterpret_cast<uint64_t>(memory_) + page * kPage; }
  uint8_t FirstByte(uint64_t page) const {
    return *reinterpret_cast<volatile uint8_t*>(At(page));
  }
  InstallResult Copy(uint64_t page, uint64_t pages) {
    const std::vector<std::byte> content(pages * kPage, std::byte{0x41});
    return CopyPages(userfault_.get(), At(page), content.data(), content.size());
  }
  void Write(uint64_t page, uint64_t pages) {
    const std::vector<std::byte> content(pages * kPage, std::byte{0x42});
    ASSERT_EQ(WriteRamFile(file_.get(), page * kPage, content), 0);
  }
  InstallResult Continue(uint64_t page, uint64_t pages) {
    return ContinuePages(userfault_.get(), At(page), pages * kPage);
  }
  InstallResult Zero(uint64_t page, uint64_t pages) {
    return ZeroPages(userfault_.get(), At(page), pages * kPage);
  }
  // The next event; waits for it.
  FaultEvent Await() {
    FaultEvent event;
    for (;;) {
      const auto count = ReadFaultEvents(userfault_.get(), {&event, 1});
      EXPECT_TRUE(count.ok());
      if (*count == 1) return event;
      std::this_thread::yield();
    }
  }

  UniqueFd file_;
  UniqueFd userfault_;
  void* memory_ = nullptr;
};

void ExpectResult(const InstallResult& result, InstallOutcome outcome, uint64_t pages) {
  EXPECT_EQ(result.outcome, outcome) << "errno " << result.error;
  EXPECT_EQ(result.done_bytes, pages * kPage);
}

// The kernel's own wake comes too early for a fault that is just under way: without the one that
// UnregisterFaults() adds, about 5 of 4000 rounds never return (Linux 6.18).
TEST_F(UserfaultTest, NoFaultWaitsAfterUnregistering) {
  for (int round = 0; round < 4000; ++round) {
    MapFile();
    Write(0, 1);
    std::atomic<bool> go{false};
    std::thread guest([&] {
      while (!go.load()) {
      }
      FirstByte(0);
    });
    go = true;
    for (std::atomic<int> spin{0}; spin < round % 100 * 20;) ++spin;
    EXPECT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
    guest.join();
    munmap(std::exchange(memory_, nullptr), kBytes);
  }
}

TEST_F(UserfaultTest, CopyInstallsAndStopsAtAPresentPage) {
  MapAnonymous();
  ExpectResult(Copy(4, 1), InstallOutcome::kInstalled, 1);
  ExpectResult(Copy(4, 2), InstallOutcome::kAlreadyPresent, 0);
  // A batch that meets it reports what it did, and asks to be tried again from there.
  ExpectResult(Copy(0, 8), InstallOutcome::kRetry, 4);
  ExpectResult(Copy(5, 3), InstallOutcome::kInstalled, 3);
  for (uint64_t page = 0; page < 8; ++page) EXPECT_EQ(FirstByte(page), 0x41);
}

TEST_F(UserfaultTest, ContinueMapsWhatThePageCacheHas) {
  MapFile();
  Write(0, 8);
  ExpectResult(Continue(0, 8), InstallOutcome::kInstalled, 8);
  ExpectResult(Continue(0, 1), InstallOutcome::kAlreadyPresent, 0);
  ExpectResult(Continue(8, 1), InstallOutcome::kNotFilled, 0);
  EXPECT_EQ(FirstByte(7), 0x42);
}

TEST_F(UserfaultTest, BatchContinueThatMeetsAPresentPageReportsItsPart) {
  MapFile();
  Write(0, 8);
  ExpectResult(Continue(3, 1), InstallOutcome::kInstalled, 1);
  ExpectResult(Continue(0, 8), InstallOutcome::kRetry, 3);
  ExpectResult(Continue(3, 5), InstallOutcome::kAlreadyPresent, 0);
  ExpectResult(Continue(4, 4), InstallOutcome::kInstalled, 4);
}

TEST_F(UserfaultTest, ZeroMakesPagesOfBothKinds) {
  MapAnonymous();
  ExpectResult(Zero(0, 8), InstallOutcome::kInstalled, 8);
  EXPECT_EQ(FirstByte(3), 0);
  munmap(memory_, kBytes);
  MapFile();
  ExpectResult(Zero(0, 1), InstallOutcome::kInstalled, 1);
  Write(1, 1);
  ExpectResult(Zero(1, 1), InstallOutcome::kAlreadyPresent, 0);
  EXPECT_EQ(FirstByte(0), 0);
}

class UserfaultPoisonTest : public UserfaultTest {
 protected:
  void SetUp() override {
    if (!KernelCanPoison()) GTEST_SKIP() << "missing: UFFDIO_POISON (Linux 6.6)";
  }
  InstallResult Poison(uint64_t page, uint64_t pages) {
    return PoisonPages(userfault_.get(), At(page), pages * kPage);
  }
  bool Fails(uint64_t page) { return RaisesSigbus(reinterpret_cast<void*>(At(page))); }
  // Pages 4 to 7 are poisoned, page 9 has come, then nothing is registered any more.
  void ExpectPoisonStaysAfterUnregistering() {
    ExpectResult(Poison(4, 4), InstallOutcome::kInstalled, 4);
    ExpectResult(Zero(9, 1), InstallOutcome::kInstalled, 1);
    EXPECT_TRUE(Fails(4));
    ASSERT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
    for (uint64_t page = 4; page < 8; ++page) EXPECT_TRUE(Fails(page)) << page;
    EXPECT_FALSE(Fails(3));
    EXPECT_FALSE(Fails(8));
    EXPECT_FALSE(Fails(9));
    EXPECT_TRUE(Fails(7)) << "also when its neighbours have been mapped";
  }
  static void ExpectResult(const InstallResult& result, InstallOutcome outcome, uint64_t pages) {
    EXPECT_EQ(result.outcome, outcome) << "errno " << result.error;
    EXPECT_EQ(result.done_bytes, pages * kPage);
  }
};

TEST_F(UserfaultPoisonTest, PoisonedAnonymousMemoryFailsAlsoWhenUnregistered) {
  MapAnonymous();
  ExpectPoisonStaysAfterUnregistering();
}

TEST_F(UserfaultPoisonTest, PoisonedFileMemoryFailsAlsoWhenUnregistered) {
  MapFile();
  ExpectPoisonStaysAfterUnregistering();
}

TEST_F(UserfaultPoisonTest, PoisonedAllocatedFileMemoryFailsAlsoWhenUnregistered) {
  MapFile();
  ASSERT_TRUE(AllocateRamFile(file_.get(), 0, 9 * kPage).ok());
  ExpectPoisonStaysAfterUnregistering();
}

TEST_F(UserfaultPoisonTest, PoisonedHugePagesFailAlsoWhenUnregistered) {
  constexpr uint64_t kHuge = 2 << 20;
  void* const huge = mmap(nullptr, 2 * kHuge, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
  if (huge == MAP_FAILED) GTEST_SKIP() << "missing: two free huge pages of 2 MiB";
  const auto at = reinterpret_cast<uint64_t>(huge);
  userfault_ = std::move(*CreateUserfault(-1));
  ASSERT_TRUE(RegisterFaults(userfault_.get(), at, 2 * kHuge, FaultMode::kMissing).ok());
  const InstallResult poisoned = PoisonPages(userfault_.get(), at, kHuge);
  EXPECT_EQ(poisoned.outcome, InstallOutcome::kInstalled) << "errno " << poisoned.error;
  ASSERT_TRUE(UnregisterFaults(userfault_.get(), at, 2 * kHuge).ok());
  EXPECT_TRUE(RaisesSigbus(reinterpret_cast<void*>(at)));
  EXPECT_TRUE(RaisesSigbus(reinterpret_cast<void*>(at + kHuge - 1)));
  EXPECT_FALSE(RaisesSigbus(reinterpret_cast<void*>(at + kHuge)));
  munmap(huge, 2 * kHuge);
}

TEST_F(UserfaultPoisonTest, PoisonStopsAtAPresentPage) {
  MapAnonymous();
  ExpectResult(Copy(4, 1), InstallOutcome::kInstalled, 1);
  ExpectResult(Poison(4, 2), InstallOutcome::kAlreadyPresent, 0);
  ExpectResult(Poison(0, 8), InstallOutcome::kRetry, 4);
  ExpectResult(Poison(0, 1), InstallOutcome::kAlreadyPresent, 0);
  ExpectResult(Copy(0, 1), InstallOutcome::kInstalled, 1);  // takes its place
  EXPECT_EQ(FirstByte(0), 0x41);
  EXPECT_EQ(FirstByte(4), 0x41);
}

TEST_F(UserfaultPoisonTest, PoisonWakesWhoWaits) {
  MapAnonymous();
  std::thread guest([this] { EXPECT_TRUE(Fails(5)); });
  Await();
  ExpectResult(Poison(5, 1), InstallOutcome::kInstalled, 1);
  guest.join();
}

TEST_F(UserfaultPoisonTest, WhatIsNotRegisteredIsNotPoisoned) {
  MapAnonymous();
  ASSERT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
  EXPECT_EQ(Poison(0, 1).outcome, InstallOutcome::kRangeGone);
  EXPECT_FALSE(Fails(0));
}

TEST_F(UserfaultPoisonTest, WhatIsGivenUpIsAsNew) {
  MapAnonymous();
  ExpectResult(Poison(5, 1), InstallOutcome::kInstalled, 1);
  ASSERT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
  ASSERT_EQ(madvise(reinterpret_cast<void*>(At(5)), kPage, MADV_DONTNEED), 0);
  EXPECT_FALSE(Fails(5));
  munmap(memory_, kBytes);
  MapFile();
  ExpectResult(Poison(5, 1), InstallOutcome::kInstalled, 1);
  ASSERT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
  ASSERT_TRUE(PunchRamFile(file_.get(), 5 * kPage, kPage).ok());
  EXPECT_TRUE(Fails(5)) << "the mapping is still the same";
  ASSERT_EQ(madvise(reinterpret_cast<void*>(At(5)), kPage, MADV_DONTNEED), 0);
  EXPECT_FALSE(Fails(5));
}

TEST_F(UserfaultTest, RangeThatIsNotRegisteredIsGone) {
  MapAnonymous();
  ASSERT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
  EXPECT_EQ(Copy(0, 1).outcome, InstallOutcome::kRangeGone);
}

// A page of the range is another mapping now, or none.
enum class Hole { kUnmapped, kMappedAgain };
class UserfaultHoleTest : public UserfaultTest, public testing::WithParamInterface<Hole> {
 protected:
  // All but the hole: what is there by now may be somebody else's.
  ~UserfaultHoleTest() override {
    const uint64_t after = hole_ + kPage;
    munmap(memory_, hole_ - At(0));
    munmap(reinterpret_cast<void*>(after), At(kPages) - after);
    if (GetParam() == Hole::kMappedAgain) munmap(reinterpret_cast<void*>(hole_), kPage);
    memory_ = nullptr;
  }
  void MakeHole(uint64_t page, int fd, int flags) {
    hole_ = At(page);
    void* const at = reinterpret_cast<void*>(hole_);
    if (GetParam() == Hole::kUnmapped) {
      ASSERT_EQ(munmap(at, kPage), 0);
    } else {
      const auto offset = static_cast<off_t>(fd < 0 ? 0 : page * kPage);
      ASSERT_EQ(mmap(at, kPage, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, offset), at);
    }
  }

 private:
  uint64_t hole_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Holes, UserfaultHoleTest,
                         testing::Values(Hole::kUnmapped, Hole::kMappedAgain));

TEST_P(UserfaultHoleTest, ARangeOfAnonymousMemoryIsGoneAsAWholeAndItsOtherPagesAreThere) {
  MapAnonymous();
  MakeHole(4, -1, MAP_PRIVATE | MAP_ANONYMOUS);
  ExpectResult(Copy(0, 8), InstallOutcome::kRangeGone, 0);
  ExpectResult(Zero(0, 8), InstallOutcome::kRangeGone, 0);
  ExpectResult(Copy(4, 1), InstallOutcome::kRangeGone, 0);
  ExpectResult(Copy(0, 4), InstallOutcome::kInstalled, 4);
  ExpectResult(Copy(5, 3), InstallOutcome::kInstalled, 3);
  EXPECT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
}

TEST_P(UserfaultHoleTest, ARangeOfAFileIsGoneAsAWholeAndItsOtherPagesAreThere) {
  MapFile();
  Write(0, 8);
  MakeHole(4, file_.get(), MAP_SHARED);
  ExpectResult(Continue(0, 8), InstallOutcome::kRangeGone, 0);
  ExpectResult(Continue(4, 1), InstallOutcome::kRangeGone, 0);
  ExpectResult(Continue(0, 4), InstallOutcome::kInstalled, 4);
  ExpectResult(Continue(5, 3), InstallOutcome::kInstalled, 3);
  EXPECT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
}

TEST_F(UserfaultTest, MisuseIsAFailureAndNoRangeThatIsGone) {
  MapAnonymous();
  const InstallResult odd = ZeroPages(userfault_.get(), At(0) + 1, kPage);
  EXPECT_EQ(odd.outcome, InstallOutcome::kFailed);
  EXPECT_EQ(odd.error, EINVAL);
  EXPECT_EQ(Copy(0, 0).error, EINVAL);
}

TEST_F(UserfaultTest, WhatIsUnmappedCannotBeUnregistered) {
  MapAnonymous();
  ASSERT_EQ(munmap(memory_, kBytes), 0);
  const auto unregistered = UnregisterFaults(userfault_.get(), At(0), kBytes);
  ASSERT_FALSE(unregistered.ok());
  EXPECT_EQ(unregistered.error().code, ErrorCode::kInvalidArgument);
  memory_ = nullptr;
}

TEST_F(UserfaultTest, FaultSaysMissingOrMinorAndWhetherItWrites) {
  MapFile();
  Write(9, 1);
  std::thread reader([this] { EXPECT_EQ(FirstByte(9), 0x42); });
  FaultEvent event = Await();
  EXPECT_EQ(event.kind, FaultEvent::Kind::kMinor);
  EXPECT_EQ(event.address & ~(kPage - 1), At(9));
  EXPECT_FALSE(event.write);
  ExpectResult(Continue(9, 1), InstallOutcome::kInstalled, 1);
  reader.join();
  std::thread writer([this] { *reinterpret_cast<volatile uint8_t*>(At(10)) = 7; });
  event = Await();
  EXPECT_EQ(event.kind, FaultEvent::Kind::kMissing);
  EXPECT_TRUE(event.write);
  ExpectResult(Zero(10, 1), InstallOutcome::kInstalled, 1);
  writer.join();
  EXPECT_EQ(FirstByte(10), 7);
}

TEST_F(UserfaultTest, WhileADiscardIsUnreadNothingIsInstalled) {
  MapAnonymous();
  ExpectResult(Copy(0, 1), InstallOutcome::kInstalled, 1);
  std::thread discarder([this] { madvise(memory_, kPage, MADV_DONTNEED); });
  // The discard waits until it has been read; meanwhile installs are refused.
  while (Copy(1, 1).outcome != InstallOutcome::kRetry) std::this_thread::yield();
  const FaultEvent event = Await();
  EXPECT_EQ(event.kind, FaultEvent::Kind::kRemove);
  EXPECT_EQ(event.address, At(0));
  EXPECT_EQ(event.end_address, At(1));
  discarder.join();
  ExpectResult(Copy(3, 1), InstallOutcome::kInstalled, 1);
}

TEST_F(UserfaultTest, NothingPendingIsNothing) {
  MapAnonymous();
  FaultEvent event;
  const auto count = ReadFaultEvents(userfault_.get(), {&event, 1});
  ASSERT_TRUE(count.ok());
  EXPECT_EQ(*count, 0u);
}

TEST_F(UserfaultTest, UnregisteringWakesWhoWaitsWithZeros) {
  MapAnonymous();
  std::thread reader([this] { EXPECT_EQ(FirstByte(5), 0); });
  Await();
  ASSERT_TRUE(UnregisterFaults(userfault_.get(), At(0), kBytes).ok());
  reader.join();
}

}  // namespace
}  // namespace postcopy
