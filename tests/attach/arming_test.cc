#include "attach/arming.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <thread>

#include "gmock/gmock.h"
#include "platform/ram_file.h"
#include "platform/userfault.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kBytes = 8 << 20;
constexpr uint64_t kPage = 4096;

class ArmingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto device = OpenUserfaultDevice();
    if (!device.ok()) GTEST_SKIP() << device.error().message;
    device_ = std::move(*device);
    file_.Reset(memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file_.get(), kBytes), 0);
    shared_ = Map(MAP_SHARED, file_.get());
    anonymous_ = Map(MAP_PRIVATE | MAP_ANONYMOUS, -1);
    auto view = PageTableView::Open();
    ASSERT_TRUE(view.ok());
    page_table_.emplace(std::move(*view));
  }
  void TearDown() override {
    if (shared_ != nullptr) munmap(const_cast<char*>(shared_), kBytes);
    if (anonymous_ != nullptr) munmap(const_cast<char*>(anonymous_), kBytes);
  }
  static volatile char* Map(int flags, int fd) {
    return static_cast<volatile char*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, flags, fd, 0));
  }
  static BlockTable::Block Describe(volatile char* at, wire::BlockKind kind, int fd) {
    BlockTable::Block block;
    block.ram_file = fd;
    block.block.address = reinterpret_cast<uintptr_t>(at);
    block.block.size_bytes = kBytes;
    block.block.kind = kind;
    block.block.name = "ram";
    return block;
  }
  BlockTable::Block Shared() const {
    return Describe(shared_, wire::BlockKind::kSharedFile, file_.get());
  }
  BlockTable::Block Anonymous() const {
    return Describe(anonymous_, wire::BlockKind::kAnonymous, -1);
  }
  static void Populate(volatile char* at) {
    for (uint64_t offset = 0; offset < kBytes; offset += kPage) at[offset] = 1;
  }
  // The next fault; the reader waits for it, nothing else does.
  static FaultEvent AwaitFault(const UniqueFd& userfault) {
    std::array<FaultEvent, 8> events;
    for (;;) {
      auto count = ReadFaultEvents(userfault.get(), events);
      EXPECT_TRUE(count.ok());
      if (!count.ok() || *count > 0) return events[0];
      std::this_thread::yield();
    }
  }

  UniqueFd device_, file_;
  volatile char* shared_ = nullptr;
  volatile char* anonymous_ = nullptr;
  std::optional<PageTableView> page_table_;
};

TEST_F(ArmingTest, PopulatedMemoryOfBothKindsIsEmptiedAndFaults) {
  Populate(shared_);
  Populate(anonymous_);
  const std::array blocks{Shared(), Anonymous()};
  auto userfault = ArmBlocks(device_.get(), blocks, *page_table_);
  ASSERT_TRUE(userfault.ok()) << userfault.error().message;
  EXPECT_EQ(*FindRamFileData(file_.get(), 0, kBytes), std::nullopt);

  for (const auto& block : blocks) {
    volatile char* at = reinterpret_cast<volatile char*>(block.block.address);
    char seen = 0;
    std::thread guest([&] { seen = at[3 * kPage]; });
    const FaultEvent fault = AwaitFault(*userfault);
    EXPECT_EQ(fault.kind, FaultEvent::Kind::kMissing);
    EXPECT_EQ(fault.address / kPage * kPage, block.block.address + 3 * kPage);
    if (block.block.kind == wire::BlockKind::kSharedFile) {
      const std::array content{std::byte{7}};
      EXPECT_EQ(WriteRamFile(file_.get(), 3 * kPage, content), 0);
      ContinuePages(userfault->get(), block.block.address + 3 * kPage, kPage);
    } else {
      std::array<std::byte, kPage> content{std::byte{7}};
      CopyPages(userfault->get(), block.block.address + 3 * kPage, content.data(), kPage);
    }
    guest.join();
    EXPECT_EQ(seen, 7);
  }
}

TEST_F(ArmingTest, APageFilledInTheRamFileIsReportedAsAMinorFault) {
  const std::array blocks{Shared()};
  auto userfault = ArmBlocks(device_.get(), blocks, *page_table_);
  ASSERT_TRUE(userfault.ok()) << userfault.error().message;
  const std::array content{std::byte{9}};
  ASSERT_EQ(WriteRamFile(file_.get(), 0, content), 0);
  std::thread guest([&] { shared_[1] = 1; });
  EXPECT_EQ(AwaitFault(*userfault).kind, FaultEvent::Kind::kMinor);
  ContinuePages(userfault->get(), blocks[0].block.address, kPage);
  guest.join();
  EXPECT_EQ(shared_[0], 9);
}

TEST_F(ArmingTest, AFailureLeavesNothingRegistered) {
  auto bad = Shared();
  bad.ram_file = -1;
  const std::array blocks{Anonymous(), bad};
  auto userfault = ArmBlocks(device_.get(), blocks, *page_table_);
  ASSERT_FALSE(userfault.ok());
  EXPECT_THAT(userfault.error().message,
              HasSubstr("arm RAM block ram of 8388608 bytes: look at RAM file"));
  Populate(anonymous_);  // would hang if it were registered
  Populate(shared_);
}

TEST_F(ArmingTest, MemoryThatIsNotMappedIsNamed) {
  auto gone = Anonymous();
  munmap(const_cast<char*>(anonymous_), kBytes);
  anonymous_ = nullptr;
  auto userfault = ArmBlocks(device_.get(), {&gone, 1}, *page_table_);
  ASSERT_FALSE(userfault.ok());
  EXPECT_THAT(userfault.error().message, HasSubstr("drop pages of guest RAM"));
}

TEST_F(ArmingTest, ItCanBeDoneAgain) {
  const std::array blocks{Shared()};
  { ASSERT_TRUE(ArmBlocks(device_.get(), blocks, *page_table_).ok()); }
  AllowHugePagesAgain(blocks);
  Populate(shared_);
  EXPECT_TRUE(ArmBlocks(device_.get(), blocks, *page_table_).ok());
}

}  // namespace
}  // namespace postcopy
