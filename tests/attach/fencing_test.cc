#include "attach/fencing.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "gmock/gmock.h"
#include "platform/ram_file.h"
#include "platform/unique_fd.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kBytes = 4 << 20;
constexpr uint64_t kHoleBytes = 4096;  // in the middle of a block
constexpr uint64_t kHugeBytes = 2 << 20;

// How a child of this process ends that reads the byte: the signal's number; 0: in order.
int SignalOfReading(const volatile char* at) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGSEGV, SIG_DFL);
    (void)*at;
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

class FencingTest : public ::testing::Test {
 protected:
  void SetUp() override {
    file_.Reset(memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file_.get(), kBytes), 0);
    for (volatile char*& memory : memory_) {
      memory = static_cast<volatile char*>(
          mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0));
      ASSERT_NE(memory, MAP_FAILED);
    }
    memory_[0][0] = 42;
  }
  void TearDown() override {
    for (size_t i = 0; i < memory_.size(); ++i) {
      // Not the hole: what is there by now is somebody else's.
      const size_t hole_bytes = has_hole_[i] ? kHoleBytes : 0;
      munmap(const_cast<char*>(memory_[i]), kBytes / 2);
      munmap(const_cast<char*>(memory_[i]) + kBytes / 2 + hole_bytes, kBytes / 2 - hole_bytes);
    }
  }
  void MakeHole(size_t i) {
    ASSERT_EQ(munmap(const_cast<char*>(memory_[i]) + kBytes / 2, kHoleBytes), 0);
    has_hole_[i] = true;
  }
  BlockTable::Block Block(size_t i) const {
    BlockTable::Block block;
    block.ram_file = file_.get();
    block.block.address = reinterpret_cast<uintptr_t>(memory_[i]);
    block.block.size_bytes = kBytes;
    block.block.kind = wire::BlockKind::kSharedFile;
    block.block.name = "ram" + std::to_string(i);
    return block;
  }

  UniqueFd file_;
  std::array<volatile char*, 2> memory_{};
  std::array<bool, 2> has_hole_{};
};

TEST_F(FencingTest, AFencedBlockEndsWhoeverTouchesItAndItsContentStays) {
  const std::array blocks{Block(0)};
  ASSERT_TRUE(FenceBlocks(blocks).ok());
  EXPECT_EQ(SignalOfReading(memory_[0]), SIGSEGV);
  EXPECT_EQ(SignalOfReading(memory_[0] + kBytes - 1), SIGSEGV);
  EXPECT_EQ(SignalOfReading(memory_[1]), 0) << "a block that was not named";
  std::array<std::byte, 1> content{};
  EXPECT_EQ(ReadRamFile(file_.get(), 0, content), 0);
  EXPECT_EQ(content[0], std::byte{42}) << "read through the file";
  ASSERT_TRUE(UnfenceBlocks(blocks).ok());
  EXPECT_EQ(memory_[0][0], 42);
  memory_[0][1] = 43;  // writable, too
}

TEST_F(FencingTest, ABlockThatCannotBeFencedLeavesNoneFenced) {
  // The middle of the second block is gone: the kernel changes what lies before the gap, then fails.
  MakeHole(1);
  const auto fenced = FenceBlocks(std::array{Block(0), Block(1)});
  ASSERT_FALSE(fenced.ok());
  EXPECT_THAT(fenced.error().message, HasSubstr("fence RAM block ram1 of 4194304 bytes: "));
  EXPECT_EQ(SignalOfReading(memory_[0]), 0);
  EXPECT_EQ(SignalOfReading(memory_[1]), 0);
}

TEST_F(FencingTest, UnfencingGoesOnBehindABlockThatFails) {
  ASSERT_TRUE(FenceBlocks(std::array{Block(0), Block(1)}).ok());
  MakeHole(0);
  EXPECT_FALSE(UnfenceBlocks(std::array{Block(0), Block(1)}).ok());
  EXPECT_EQ(SignalOfReading(memory_[1]), 0);
}

TEST_F(FencingTest, HugePagesAreFencedWhole) {
  UniqueFd file(memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB));
  if (!file.valid() || ftruncate(file.get(), kHugeBytes) != 0) GTEST_SKIP() << "no hugetlbfs";
  void* memory = mmap(nullptr, kHugeBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (memory == MAP_FAILED) GTEST_SKIP() << "no huge page is free";
  auto* at = static_cast<volatile char*>(memory);
  at[0] = 1;
  BlockTable::Block block = Block(0);
  block.block.address = reinterpret_cast<uintptr_t>(memory);
  block.block.size_bytes = kHugeBytes;
  ASSERT_TRUE(FenceBlocks(std::array{block}).ok());
  EXPECT_EQ(SignalOfReading(at), SIGSEGV);
  ASSERT_TRUE(UnfenceBlocks(std::array{block}).ok());
  EXPECT_EQ(at[0], 1);
  munmap(memory, kHugeBytes);
}

}  // namespace
}  // namespace postcopy
