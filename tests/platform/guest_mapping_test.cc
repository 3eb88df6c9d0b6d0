#include "platform/guest_mapping.h"

#include <sys/mman.h>

#include "gmock/gmock.h"

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

}  // namespace
}  // namespace postcopy
