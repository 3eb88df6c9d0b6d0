#include "attach/block_table.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using AddOutcome = BlockTable::AddOutcome;

constexpr uint64_t kMegabyte = 1 << 20;

BlockTable::NewBlock Anonymous(uint64_t address, uint64_t size_bytes) {
  BlockTable::NewBlock block;
  block.address = address;
  block.size_bytes = size_bytes;
  return block;
}

class BlockTableTest : public ::testing::Test {
 protected:
  std::vector<uint64_t> Addresses() {
    std::vector<uint64_t> addresses;
    for (const auto& block : table_->Collect().blocks) addresses.push_back(block.block.address);
    return addresses;
  }
  std::unique_ptr<BlockTable> table_ = std::make_unique<BlockTable>();
};

TEST_F(BlockTableTest, KeepsTheOrderInWhichBlocksWereAdded) {
  EXPECT_FALSE(table_->HasSomething());
  table_->Add(Anonymous(9 * kMegabyte, kMegabyte));
  table_->Add(Anonymous(3 * kMegabyte, kMegabyte));
  EXPECT_TRUE(table_->HasSomething());
  EXPECT_THAT(Addresses(), ElementsAre(9 * kMegabyte, 3 * kMegabyte));
  EXPECT_TRUE(table_->RemoveOverlapping(9 * kMegabyte, 4096));
  table_->Add(Anonymous(1 * kMegabyte, kMegabyte));
  EXPECT_THAT(Addresses(), ElementsAre(3 * kMegabyte, 1 * kMegabyte));
}

TEST_F(BlockTableTest, APartMappedAnewChangesNothing) {
  table_->Add(Anonymous(kMegabyte, kMegabyte));
  const uint64_t before = table_->CountChanges();
  EXPECT_EQ(table_->Add(Anonymous(kMegabyte + 4096, 4096)), AddOutcome::kAlreadyThere);
  EXPECT_EQ(table_->CountChanges(), before);
}

TEST_F(BlockTableTest, AMappingOverABlockReplacesIt) {
  table_->Add(Anonymous(kMegabyte, kMegabyte));
  table_->Add(Anonymous(4 * kMegabyte, kMegabyte));
  EXPECT_EQ(table_->Add(Anonymous(kMegabyte, 2 * kMegabyte)), AddOutcome::kAdded);
  EXPECT_THAT(Addresses(), ElementsAre(4 * kMegabyte, kMegabyte));
}

TEST_F(BlockTableTest, OnlyWhatOverlapsIsRemoved) {
  table_->Add(Anonymous(2 * kMegabyte, kMegabyte));
  EXPECT_FALSE(table_->RemoveOverlapping(kMegabyte, kMegabyte));
  EXPECT_FALSE(table_->RemoveOverlapping(3 * kMegabyte, kMegabyte));
  EXPECT_TRUE(table_->RemoveOverlapping(3 * kMegabyte - 4096, kMegabyte));
  EXPECT_FALSE(table_->RemoveOverlapping(2 * kMegabyte, kMegabyte)) << "it is gone already";
}

TEST_F(BlockTableTest, ItIsFullAt64AndSlotsAreUsedAgain) {
  for (uint64_t i = 0; i < 64; ++i) {
    ASSERT_EQ(table_->Add(Anonymous((i + 1) * kMegabyte, kMegabyte)), AddOutcome::kAdded);
  }
  EXPECT_EQ(table_->Add(Anonymous(100 * kMegabyte, kMegabyte)), AddOutcome::kFull);
  table_->RemoveOverlapping(kMegabyte, kMegabyte);
  table_->Collect();
  EXPECT_EQ(table_->Add(Anonymous(100 * kMegabyte, kMegabyte)), AddOutcome::kAdded);
}

TEST_F(BlockTableTest, TheDescriptorOfARemovedBlockIsClosedByTheCollector) {
  const int fd = memfd_create("ram", MFD_CLOEXEC);
  BlockTable::NewBlock block = Anonymous(kMegabyte, kMegabyte);
  block.kind = wire::BlockKind::kSharedFile;
  block.ram_file = fd;
  block.name = "ram";
  block.path = "/dev/shm/r";
  block.file_offset = 4096;
  table_->Add(block);
  const auto found = table_->Collect().blocks.at(0);
  EXPECT_EQ(found.ram_file, fd);
  EXPECT_EQ(found.block.name, "ram");
  EXPECT_EQ(found.block.path, "/dev/shm/r");
  EXPECT_EQ(found.block.file_offset, 4096u);
  table_->RemoveOverlapping(kMegabyte, kMegabyte);
  EXPECT_GE(fcntl(fd, F_GETFD), 0);
  table_->Collect();
  EXPECT_EQ(fcntl(fd, F_GETFD), -1);
}

TEST_F(BlockTableTest, TheFirstProblemStays) {
  EXPECT_TRUE(table_->SetProblem("first"));
  EXPECT_FALSE(table_->SetProblem("second"));
  EXPECT_EQ(table_->Collect().problem, "first");
  EXPECT_TRUE(table_->HasSomething());
}

TEST_F(BlockTableTest, ThreadsMayAddAndRemoveWhileItIsRead) {
  std::atomic<bool> stop = false;
  std::thread collector([&] {
    while (!stop) table_->Collect();
  });
  std::vector<std::thread> writers;
  for (uint64_t writer = 0; writer < 2; ++writer) {
    writers.emplace_back([&, writer] {
      const BlockTable::NewBlock block = Anonymous((1 + writer * 100) * kMegabyte, kMegabyte);
      // Full until the collector has come round: removed blocks keep their slots that long.
      const auto add = [&] {
        while (table_->Add(block) == AddOutcome::kFull) std::this_thread::yield();
      };
      for (int i = 0; i < 2000; ++i) {
        add();
        table_->RemoveOverlapping(block.address, kMegabyte);
      }
      add();
    });
  }
  for (std::thread& writer : writers) writer.join();
  stop = true;
  collector.join();
  EXPECT_EQ(Addresses().size(), 2u);
}

}  // namespace
}  // namespace postcopy
