#include "server/page_source.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "platform/duplicate_fd.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

constexpr uint64_t kPages = 16;
constexpr RegionId kRegion{0};

// Pages 0 to 7 are zero, all others random.
class HalfRandom final : public PageSource {
 public:
  HalfRandom() : content_(kPages * kPageBytes) {
    std::mt19937 random(1);
    std::generate(content_.begin() + 8 * kPageBytes, content_.end(),
                  [&] { return static_cast<std::byte>(random()); });
  }
  const MemoryLayout& layout() const override { return layout_; }
  int Read(RegionId, PageRange range, std::span<std::byte> to) override {
    std::memcpy(to.data(), content_.data() + range.first.offset_bytes(), to.size());
    return 0;
  }
  Result<std::vector<PageRange>> DataExtents(RegionId) override {
    return std::vector<PageRange>{{{8}, 8}};
  }

 private:
  const MemoryLayout layout_{{{"ram", kPages * kPageBytes}}};
  std::vector<std::byte> content_;
};

TEST(RamFileSourceTest, WhatIsFreedAfterTheStopIsLostAndIsSeenByTheNextDaemon) {
  const UniqueFd ram(memfd_create("ram", MFD_CLOEXEC));
  ASSERT_EQ(WriteRamFile(ram.get(), 0, std::vector<std::byte>(4 * kPageBytes, std::byte{1})), 0);
  const auto serve = [&] {
    std::vector<RamFileSource::RegionFile> files;
    files.push_back({std::move(*DuplicateFd(ram)), 0});
    auto source = std::make_unique<RamFileSource>(MemoryLayout{{{"ram", 4 * kPageBytes}}},
                                                  std::move(files));
    source->Freeze();
    return source;
  };
  const auto source = serve();
  EXPECT_EQ(source->frozen_bytes(), 4 * kPageBytes);
  EXPECT_FALSE(source->HasLost(kRegion));
  ASSERT_TRUE(PunchRamFile(ram.get(), kPageBytes, kPageBytes).ok());
  EXPECT_TRUE(source->HasLost(kRegion));
  EXPECT_FALSE(source->HasData({kRegion, {1}}));
  EXPECT_EQ(serve()->frozen_bytes(), 3 * kPageBytes);
}

class CorruptOneByteTest : public ::testing::Test {
 protected:
  // How many bytes of these pages differ from the source's.
  static size_t WrongBytes(PageSource& served, PageRange range) {
    HalfRandom right;
    std::vector<std::byte> expected(range.size_bytes()), got(range.size_bytes());
    EXPECT_EQ(right.Read(kRegion, range, expected), 0);
    EXPECT_EQ(served.Read(kRegion, range, got), 0);
    size_t wrong = 0;
    for (size_t i = 0; i < got.size(); ++i) wrong += got[i] != expected[i];
    return wrong;
  }
};

TEST_F(CorruptOneByteTest, FlipsOneByteOfAllThatIsRead) {
  CorruptOneByte served(std::make_shared<HalfRandom>(), 3);
  EXPECT_EQ(WrongBytes(served, {{0}, kPages}), 1u);
}

TEST_F(CorruptOneByteTest, PassesOverPagesThatDoNotLookRandom) {
  CorruptOneByte served(std::make_shared<HalfRandom>(), 0);
  EXPECT_EQ(WrongBytes(served, {{0}, 8}), 0u);
  EXPECT_EQ(WrongBytes(served, {{8}, 1}), 1u);
}

TEST_F(CorruptOneByteTest, FlipsThePageEachTimeItIsRead) {
  CorruptOneByte served(std::make_shared<HalfRandom>(), 2);
  EXPECT_EQ(WrongBytes(served, {{8}, 3}), 1u);
  EXPECT_EQ(WrongBytes(served, {{10}, 1}), 1u);
  EXPECT_EQ(WrongBytes(served, {{0}, kPages}), 1u);
}

TEST_F(CorruptOneByteTest, NeverChoosesAPageThatWasSentRightBefore) {
  CorruptOneByte served(std::make_shared<HalfRandom>(), 2);
  EXPECT_EQ(WrongBytes(served, {{8}, 1}), 0u);
  EXPECT_EQ(WrongBytes(served, {{8}, 2}), 0u);
  EXPECT_EQ(WrongBytes(served, {{8}, 2}), 0u);
  EXPECT_EQ(WrongBytes(served, {{8}, 3}), 1u);
}

}  // namespace
}  // namespace postcopy
