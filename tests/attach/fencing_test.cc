#include "attach/fencing.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <string>

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
    file_.Reset(memfd_create("ram-under-test", MFD_CLOEXEC));
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
    block.id = i + 1;
    block.ram_file = file_.get();
    block.block.address = reinterpret_cast<uintptr_t>(memory_[i]);
    block.block.size_bytes = kBytes;
    block.block.kind = wire::BlockKind::kSharedFile;
    block.block.name = "ram" + std::to_string(i);
    return block;
  }

  // Mappings of the file in this process, however large.
  static int CountMappings() {
    std::ifstream maps("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(maps, line);) count += line.find("memfd:ram-under-test") != std::string::npos;
    return count;
  }

  UniqueFd file_;
  std::array<volatile char*, 2> memory_{};
  std::array<bool, 2> has_hole_{};
};

TEST_F(FencingTest, AFencedBlockEndsWhoeverTouchesItAndItsContentStays) {
  const std::array blocks{Block(0)};
  auto fence = Fence::Lay(blocks);
  ASSERT_TRUE(fence.ok());
  EXPECT_TRUE(fence->Has(Block(0).id));
  EXPECT_FALSE(fence->Has(Block(1).id));
  EXPECT_EQ(CountMappings(), 3) << "its pages are elsewhere, untouched";
  EXPECT_EQ(SignalOfReading(memory_[0]), SIGSEGV);
  EXPECT_EQ(SignalOfReading(memory_[0] + kBytes - 1), SIGSEGV);
  EXPECT_EQ(SignalOfReading(memory_[1]), 0) << "a block that was not named";
  std::array<std::byte, 1> content{};
  EXPECT_EQ(ReadRamFile(file_.get(), 0, content), 0);
  EXPECT_EQ(content[0], std::byte{42}) << "read through the file";
  ASSERT_TRUE(fence->Lift(blocks).ok());
  EXPECT_TRUE(fence->IsEmpty());
  EXPECT_EQ(CountMappings(), 2);
  EXPECT_EQ(memory_[0][0], 42);
  memory_[0][1] = 43;  // writable, too
}

TEST_F(FencingTest, WhatOthersDidToTheFileIsThereAfterwards) {
  const std::array blocks{Block(0)};
  auto fence = Fence::Lay(blocks);
  ASSERT_TRUE(fence.ok());
  memory_[1][0] = 44;
  ASSERT_TRUE(PunchRamFile(file_.get(), kBytes / 2, kBytes / 2).ok());
  ASSERT_TRUE(fence->Lift(blocks).ok());
  EXPECT_EQ(memory_[0][0], 44);
  EXPECT_EQ(memory_[0][kBytes - 1], 0);
}

TEST_F(FencingTest, ABlockThatTheVmmHasUnmappedLeavesTheFenceAndNothingBehind) {
  auto fence = Fence::Lay(std::array{Block(0), Block(1)});
  ASSERT_TRUE(fence.ok());
  ASSERT_EQ(munmap(const_cast<char*>(memory_[0]), kBytes), 0);
  fence->Forget(std::array{Block(1)});
  EXPECT_FALSE(fence->Has(Block(0).id));
  ASSERT_TRUE(fence->Lift(std::array{Block(1)}).ok());
  EXPECT_EQ(SignalOfReading(memory_[1]), 0);
  ASSERT_EQ(munmap(const_cast<char*>(memory_[1]), kBytes), 0);
  EXPECT_EQ(CountMappings(), 0) << "the file's memory would stay for as long as the process lives";
}

TEST_F(FencingTest, ABlockOfMoreThanOneMappingIsFencedWhole) {
  const std::array blocks{Block(0)};
  ASSERT_EQ(madvise(const_cast<char*>(memory_[0]), kBytes / 2, MADV_DONTFORK), 0);
  ASSERT_EQ(madvise(const_cast<char*>(memory_[0]), kBytes / 2, MADV_DOFORK), 0);
  ASSERT_EQ(madvise(const_cast<char*>(memory_[0]) + kBytes / 2, kBytes / 2, MADV_DONTDUMP), 0);
  ASSERT_EQ(CountMappings(), 3);
  auto fence = Fence::Lay(blocks);
  ASSERT_TRUE(fence.ok());
  EXPECT_EQ(SignalOfReading(memory_[0]), SIGSEGV);
  EXPECT_EQ(SignalOfReading(memory_[0] + kBytes - 1), SIGSEGV);
  ASSERT_TRUE(fence->Lift(blocks).ok());
  EXPECT_EQ(memory_[0][0], 42);
  memory_[0][kBytes - 1] = 1;
}

TEST_F(FencingTest, AnonymousMemoryKeepsItsContent) {
  auto* memory = static_cast<volatile char*>(
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  memory[0] = 45;
  BlockTable::Block block = Block(0);
  block.ram_file = -1;
  block.block.kind = wire::BlockKind::kAnonymous;
  block.block.address = reinterpret_cast<uintptr_t>(memory);
  auto fence = Fence::Lay(std::array{block});
  ASSERT_TRUE(fence.ok());
  EXPECT_EQ(SignalOfReading(memory), SIGSEGV);
  ASSERT_TRUE(fence->Lift(std::array{block}).ok());
  EXPECT_EQ(memory[0], 45);
  munmap(const_cast<char*>(memory), kBytes);
}

TEST_F(FencingTest, WithoutAddressSpaceItIsFencedAllTheSame) {
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{1, 1};
    setrlimit(RLIMIT_AS, &limit);
    const std::array blocks{Block(0)};
    auto fence = Fence::Lay(blocks);
    if (!fence.ok() || CountMappings() != 2) _exit(3);  // in place
    if (SignalOfReading(memory_[0]) != SIGSEGV) _exit(1);
    _exit(fence->Lift(blocks).ok() && memory_[0][0] == 42 ? 0 : 2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
}

TEST_F(FencingTest, ABlockThatCannotBeFencedLeavesNoneFenced) {
  // The middle of the second block is gone: the kernel changes what lies before the gap, then fails.
  MakeHole(1);
  const auto fenced = Fence::Lay(std::array{Block(0), Block(1)});
  ASSERT_FALSE(fenced.ok());
  EXPECT_THAT(fenced.error().message, HasSubstr("fence RAM block ram1 of 4194304 bytes: "));
  EXPECT_EQ(SignalOfReading(memory_[0]), 0);
  EXPECT_EQ(SignalOfReading(memory_[1]), 0);
}

TEST_F(FencingTest, UnfencingGoesOnBehindABlockThatFails) {
  auto fence = Fence::Lay(std::array{Block(0), Block(1)});
  ASSERT_TRUE(fence.ok());
  MakeHole(0);
  EXPECT_FALSE(fence->Lift(std::array{Block(0), Block(1)}).ok());
  EXPECT_EQ(SignalOfReading(memory_[1]), 0);
  EXPECT_TRUE(fence->Has(Block(0).id)) << "it is still to be lifted";
  EXPECT_FALSE(fence->Has(Block(1).id));
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
  auto fence = Fence::Lay(std::array{block});
  ASSERT_TRUE(fence.ok());
  EXPECT_EQ(SignalOfReading(at), SIGSEGV);
  ASSERT_TRUE(fence->Lift(std::array{block}).ok());
  EXPECT_EQ(at[0], 1);
  munmap(memory, kHugeBytes);
}

}  // namespace
}  // namespace postcopy
