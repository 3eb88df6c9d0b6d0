#include "platform/guest_mapping.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "platform/unique_fd.h"

namespace postcopy {
namespace {

constexpr uint64_t kBytes = 64 << 20;  // two chunks of the page table
constexpr uint64_t kPage = 4096;

class GuestMappingTest : public ::testing::Test {
 protected:
  GuestMappingTest() {
    void* mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory_ = static_cast<volatile char*>(mapped);
    address_ = reinterpret_cast<uint64_t>(mapped);
    EXPECT_TRUE(ForbidHugePages(address_, kBytes).ok());
  }
  ~GuestMappingTest() override { munmap(const_cast<char*>(memory_), kBytes); }

  std::optional<uint64_t> FirstPresent() {
    auto view = PageTableView::Open();
    EXPECT_TRUE(view.ok());
    auto found = view->FindPresent(address_, kBytes);
    EXPECT_TRUE(found.ok());
    return *found;
  }

  volatile char* memory_ = nullptr;
  uint64_t address_ = 0;
};

TEST_F(GuestMappingTest, FindsTheFirstPageThatIsPresent) {
  EXPECT_EQ(FirstPresent(), std::nullopt);
  memory_[kBytes - 1] = 1;
  EXPECT_EQ(FirstPresent(), address_ + kBytes - kPage);
  memory_[5 * kPage + 7] = 1;
  EXPECT_EQ(FirstPresent(), address_ + 5 * kPage);
}

TEST_F(GuestMappingTest, DroppedPagesAreGone) {
  memory_[3 * kPage] = 1;
  ASSERT_TRUE(DropGuestPages(address_, kBytes).ok());
  EXPECT_EQ(FirstPresent(), std::nullopt);
  EXPECT_EQ(memory_[3 * kPage], 0);
}

TEST_F(GuestMappingTest, HugePagesCanBeAllowedAgain) {
  EXPECT_TRUE(AllowHugePages(address_, kBytes).ok());
}

class MovedMappingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file_.Reset(memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file_.get(), kFileOffset + kBytes), 0);
    void* mapped = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(),
                        static_cast<off_t>(kFileOffset));
    ASSERT_NE(mapped, MAP_FAILED);
    memory_ = static_cast<volatile char*>(mapped);
    memory_[kBytes - 1] = 42;
    mapping_ = {reinterpret_cast<uint64_t>(mapped), kBytes, file_.get(), kFileOffset};
  }
  void TearDown() override { munmap(const_cast<char*>(memory_), kBytes); }

  std::optional<uint64_t> FirstPresent(uint64_t address) {
    auto view = PageTableView::Open();
    EXPECT_TRUE(view.ok());
    auto found = view->FindPresent(address, kBytes);
    EXPECT_TRUE(found.ok());
    return *found;
  }

  static constexpr uint64_t kFileOffset = 5 * kPage;
  UniqueFd file_;
  volatile char* memory_ = nullptr;
  SharedMapping mapping_;
};

TEST_F(MovedMappingTest, ThePagesAreElsewhereAndComeBackPresent) {
  auto moved = MoveAway(mapping_);
  ASSERT_TRUE(moved.ok()) << moved.error().message;
  EXPECT_EQ(FirstPresent(mapping_.address), std::nullopt);
  EXPECT_EQ(FirstPresent(*moved), *moved + kBytes - kPage);
  ASSERT_TRUE(MoveBack(mapping_, *moved).ok());
  EXPECT_EQ(FirstPresent(mapping_.address), mapping_.address + kBytes - kPage);
  EXPECT_EQ(memory_[kBytes - 1], 42);
}

TEST_F(MovedMappingTest, WhatCannotBeMovedBackIsMappedAnewWithItsContent) {
  auto moved = MoveAway(mapping_);
  ASSERT_TRUE(moved.ok());
  DropMoved(*moved, kBytes);  // by somebody else
  ASSERT_TRUE(MoveBack(mapping_, *moved).ok());
  EXPECT_EQ(memory_[kBytes - 1], 42);
}

TEST_F(MovedMappingTest, WhatIsUnmappedMeanwhileIsNotMappedAgain) {
  auto moved = MoveAway(mapping_);
  ASSERT_TRUE(moved.ok());
  munmap(const_cast<char*>(memory_), kBytes);
  EXPECT_EQ(MoveBack(mapping_, *moved).error().code, ErrorCode::kNotFound);
  DropMoved(*moved, kBytes);
}

TEST_F(MovedMappingTest, WhatIsLostIsMappedWhereNothingElseIs) {
  EXPECT_FALSE(MapLost(mapping_).ok()) << "something is";
  munmap(const_cast<char*>(memory_), kBytes);
  ASSERT_TRUE(MapLost(mapping_).ok());
  EXPECT_EQ(memory_[kBytes - 1], 42);
}

TEST_F(MovedMappingTest, ARangeOfSeveralMappingsIsRefusedAndStays) {
  ASSERT_EQ(madvise(const_cast<char*>(memory_), kBytes / 2, MADV_DONTDUMP), 0);
  ASSERT_FALSE(MoveAway(mapping_).ok());
  EXPECT_EQ(FirstPresent(mapping_.address), mapping_.address + kBytes - kPage);
  memory_[0] = 1;
}

TEST_F(MovedMappingTest, LockedMemoryIsLockedAfterwards) {
  // A sanitizer's mlock() locks nothing.
  if (syscall(SYS_mlock, memory_, kBytes) != 0) GTEST_SKIP() << "RLIMIT_MEMLOCK is less";
  auto moved = MoveAway(mapping_);
  ASSERT_TRUE(moved.ok()) << moved.error().message;
  ASSERT_TRUE(MoveBack(mapping_, *moved).ok());
  // Refused for pages that are locked.
  EXPECT_NE(madvise(const_cast<char*>(memory_), kBytes, MADV_DONTNEED), 0);
}

}  // namespace
}  // namespace postcopy
