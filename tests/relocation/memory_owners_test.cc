// Which waiting VMs are refused because the memory that would be emptied is not theirs alone.
#include "relocation/memory_owners.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

constexpr FileId kFile{21, 7};
constexpr FileId kSameInodeElsewhere{22, 7};
constexpr FileId kOtherFile{21, 8};
constexpr uint64_t kMiB = 1 << 20;

VmBlock Block(FileId file, uint64_t offset, uint64_t size_bytes) {
  VmBlock block;
  block.kind = wire::BlockKind::kSharedFile;
  block.file_id = file;
  block.file_offset = offset;
  block.size_bytes = size_bytes;
  block.path = "/dev/shm/web1";
  return block;
}

class MemoryOwnersTest : public testing::Test {
 protected:
  MemoryOwnersTest() {
    vm_.name = "waits";
    vm_.blocks.push_back(Block(kFile, 0, 2 * kMiB));
  }
  // With another VM whose block is this one, besides this VM's own.
  absl::Status Check(FileId file, uint64_t offset, const std::string& name = "web1") {
    return CheckMemoryIsItsOwn(vm_, {0},
                               {{"waits", 5, "/dev/shm/web1", kFile, 0, 2 * kMiB},
                                {name, 6, "/dev/shm/web1", file, offset, kMiB}});
  }

  VmRecord vm_;
};

TEST_F(MemoryOwnersTest, MemoryOfItsOwnMayBeEmptied) {
  EXPECT_TRUE(Check(kOtherFile, 0).ok());
  EXPECT_TRUE(Check(kSameInodeElsewhere, 0).ok());
  EXPECT_TRUE(Check(kFile, 2 * kMiB).ok()) << "another part of the file";
}

TEST_F(MemoryOwnersTest, TheMemoryOfAnotherVmIsNotEmptied) {
  for (const uint64_t offset : {uint64_t{0}, kMiB, 2 * kMiB - 4096}) {
    const absl::Status status = Check(kFile, offset);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << offset;
    EXPECT_THAT(std::string(status.message()), HasSubstr("/dev/shm/web1"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("VM web1 (process 6)"));
  }
}

TEST_F(MemoryOwnersTest, NorThatOfAProcessWithoutAHook) {
  EXPECT_THAT(std::string(Check(kFile, 0, "").message()),
              HasSubstr("is also mapped by process 6, which would lose it"));
}

TEST_F(MemoryOwnersTest, TwoBlocksOfOneVmInTheSameBytesAreRefused) {
  vm_.blocks.push_back(Block(kFile, kMiB, kMiB));
  EXPECT_EQ(Check(kOtherFile, 0).code(), absl::StatusCode::kFailedPrecondition);
  vm_.blocks[1].file_offset = 2 * kMiB;
  EXPECT_TRUE(Check(kOtherFile, 0).ok());
}

TEST_F(MemoryOwnersTest, AnonymousMemoryIsNobodyElses) {
  vm_.blocks[0].kind = wire::BlockKind::kAnonymous;
  vm_.blocks[0].file_id = {};
  EXPECT_TRUE(Check({}, 0).ok());
}

}  // namespace
}  // namespace postcopy
