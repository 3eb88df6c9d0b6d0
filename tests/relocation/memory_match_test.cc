#include "relocation/memory_match.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

VmBlock Block(wire::BlockKind kind, uint64_t size_bytes, const std::string& path) {
  VmBlock block;
  block.kind = kind;
  block.size_bytes = size_bytes;
  block.path = path;
  return block;
}
VmBlock File(uint64_t size_bytes, const std::string& path) {
  return Block(wire::BlockKind::kSharedFile, size_bytes, path);
}
VmBlock Anonymous(uint64_t size_bytes) {
  return Block(wire::BlockKind::kAnonymous, size_bytes, "");
}
VmmRamBackend Shared(const std::string& id, uint64_t size_bytes, const std::string& path) {
  return {id, "memory-backend-file", size_bytes, true, path, false};
}
VmmRamBackend Private(const std::string& id, uint64_t size_bytes) {
  return {id, "memory-backend-ram", size_bytes, false, "", false};
}

struct Case {
  VmRecord record;
  VmmDescription vmm;
  absl::StatusOr<MatchedMemory> Match(SessionRole role) { return MatchMemory(record, vmm, role); }
};

TEST(MemoryMatchTest, FilesAreKnownByTheirPathWhateverTheOrder) {
  Case c;
  c.record.blocks.push_back(File(4096, "/dev/shm/b"));
  c.record.blocks.push_back(File(4096, "/dev/shm/a"));
  c.vmm.ram = {Shared("ram0", 4096, "/dev/shm/a"), Shared("ram1", 4096, "/dev/shm/b")};
  const auto matched = c.Match(SessionRole::kSource);
  ASSERT_TRUE(matched.ok()) << matched.status();
  EXPECT_THAT(matched->blocks, testing::ElementsAre(1, 0));
  EXPECT_EQ(matched->layout.regions[0].name, "ram0");
}

TEST(MemoryMatchTest, AFileWithoutAPathIsKnownByItsSizeIfThatIsUnique) {
  Case c;
  c.record.blocks.push_back(Anonymous(4096));
  c.record.blocks.push_back(File(4096, "/memfd:ram (deleted)"));
  c.vmm.ram = {Shared("ram", 4096, "/proc/self/fd/9")};
  EXPECT_THAT(c.Match(SessionRole::kSource)->blocks, testing::ElementsAre(1));
  c.record.blocks.push_back(File(4096, "/memfd:other (deleted)"));
  EXPECT_THAT(std::string(c.Match(SessionRole::kSource).status().message()),
              HasSubstr("nothing tells them apart"));
}

TEST(MemoryMatchTest, ASourceNeedsSharedFilesADestinationDoesNot) {
  Case c;
  c.record.blocks.push_back(Anonymous(8192));
  c.vmm.ram = {Private("ram", 8192)};
  EXPECT_THAT(std::string(c.Match(SessionRole::kSource).status().message()),
              HasSubstr("RAM block ram is not in a shared file"));
  EXPECT_THAT(c.Match(SessionRole::kDestination)->blocks, testing::ElementsAre(0));
  c.record.blocks.push_back(Anonymous(8192));
  EXPECT_FALSE(c.Match(SessionRole::kDestination).ok()) << "two anonymous blocks of one size";
}

TEST(MemoryMatchTest, RamThatTheHookHasNotSeenOrThatIsNoObjectIsRefused) {
  Case c;
  EXPECT_THAT(std::string(c.Match(SessionRole::kSource).status().message()),
              HasSubstr("memory-backend-file"));
  c.vmm.ram = {Shared("ram", 4096, "/dev/shm/a")};
  EXPECT_THAT(std::string(c.Match(SessionRole::kSource).status().message()),
              HasSubstr("the hook saw no mapping"));
}

}  // namespace
}  // namespace postcopy
