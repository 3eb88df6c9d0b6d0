#include "attach/block_table.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <new>
#include <thread>
#include <utility>

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

// Not under ThreadSanitizer, whose runtime holds a lock of its own during each atomic write: playing
// other threads in the middle of one would deadlock.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define POSTCOPY_CANNOT_INTERRUPT_WRITES
#endif
#endif
#if !defined(POSTCOPY_CANNOT_INTERRUPT_WRITES)
// A table in pages of its own. Once it is frozen, the next write to it is held up until `between` has
// run, on the same thread.
class FrozenTable {
 public:
  FrozenTable()
      : memory_(mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
        table_(new (memory_) BlockTable) {
    frozen_ = this;
    struct sigaction action {};
    action.sa_handler = [](int) { frozen_->OnWrite(); };
    sigaction(SIGSEGV, &action, &before_);
  }
  ~FrozenTable() {
    sigaction(SIGSEGV, &before_, nullptr);
    munmap(memory_, kBytes);
  }
  BlockTable* operator->() { return table_; }
  void Freeze(std::function<void()> between) {
    between_ = std::move(between);
    mprotect(memory_, kBytes, PROT_READ);
  }

 private:
  static constexpr size_t kBytes = 512 << 10;
  static_assert(sizeof(BlockTable) <= kBytes);

  void OnWrite() {
    if (between_ == nullptr) {
      signal(SIGSEGV, SIG_DFL);
      return;  // no write to the table: it is raised again
    }
    mprotect(memory_, kBytes, PROT_READ | PROT_WRITE);
    std::exchange(between_, nullptr)();
  }

  static inline FrozenTable* frozen_ = nullptr;
  void* const memory_;
  BlockTable* const table_;
  std::function<void()> between_;
  struct sigaction before_ {};
};

// The first thing that RemoveOverlapping() writes is that the slot it has looked at is retired.
TEST(FrozenBlockTableTest, ASlotThatAnotherBlockHasGotSinceItWasLookedAtIsNotRetired) {
  FrozenTable table;
  table->Add(Anonymous(kMegabyte, kMegabyte));
  bool played = false;
  table.Freeze([&] {
    played = table->RemoveOverlapping(kMegabyte, kMegabyte);
    table->Collect();
    table->Add(Anonymous(8 * kMegabyte, kMegabyte));
  });
  EXPECT_FALSE(table->RemoveOverlapping(kMegabyte, kMegabyte)) << "another thread has removed it";
  ASSERT_TRUE(played);
  const auto blocks = table->Collect().blocks;
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_EQ(blocks[0].block.address, 8 * kMegabyte);
}

#endif  // POSTCOPY_CANNOT_INTERRUPT_WRITES

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
