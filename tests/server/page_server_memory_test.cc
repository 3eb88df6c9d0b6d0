// The page server over guest RAM that cannot be read or was freed after the VM had stopped: it says
// which pages are lost, and sends none of them as zeros.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "platform/duplicate_fd.h"
#include "platform/ram_file.h"
#include "tests/server/page_server_fixture.h"

namespace postcopy {
namespace {

using wire::Lane;
using wire::PageFrame;

TEST_F(PageServerTest, APageThatCannotBeReadIsNamedAndTheRestGoesOn) {
  source_->FailReadsOf(5, EIO);
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeRequest({1, {{0}, {5}}}));
  lane->Send(wire::EncodeRequest({2, {{0}, {6}}}));
  const auto frame = lane->Read();
  ASSERT_EQ(frame.type(), PageFrame::kUnreadable);
  const auto unreadable = wire::DecodeUnreadable(frame.body, /*urgent=*/true);
  ASSERT_TRUE(unreadable.ok());
  EXPECT_EQ(unreadable->page.id, 1u);
  EXPECT_EQ(unreadable->page.page, (PageAddress{{0}, {5}}));
  EXPECT_EQ(unreadable->text, "Input/output error");
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);

  auto bulk = Greet(Lane::kBulk);
  bulk->Send(wire::EncodeGrant({{0}, {{4}, 4}}));
  EXPECT_EQ(bulk->Read().type(), PageFrame::kRun);  // page 4
  const auto part = bulk->Read();
  ASSERT_EQ(part.type(), PageFrame::kUnreadable);
  EXPECT_EQ(wire::DecodeUnreadable(part.body, /*urgent=*/false)->run.range, (PageRange{{5}, 1}));
  const auto next_run = [&] {
    const auto run = bulk->Read();
    return wire::DecodeRangeFields(std::span(run.body).first(wire::kPageFieldsBytes))->range;
  };
  EXPECT_EQ(next_run(), (PageRange{{6}, 1}));
  EXPECT_EQ(next_run(), (PageRange{{7}, 1}));  // zero
}

TEST_F(PageServerTest, WhereTheMapCannotBeFoundOutEverythingMayHaveData) {
  source_->FailReads(EIO);
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeMapRequest());
  for (uint32_t region = 0; region < 2; ++region) {
    const auto frame = lane->Read();
    const auto map = wire::DecodeMap(frame.header, frame.body);
    ASSERT_TRUE(map.ok());
    EXPECT_EQ(map->last, region == 1);
    ASSERT_EQ(map->extents.size(), 1u);
    EXPECT_EQ(map->extents[0], (PageRange{{0}, source_->layout().regions[region].count_pages()}));
  }
}

// A real RAM file whose first eight pages have data, page 3 zeros; pages 8 to 15 are a hole.
class EmptiedFileTest : public PageServerTest {
 protected:
  EmptiedFileTest() {
    EXPECT_EQ(ftruncate(file_.get(), 16 * kPageBytes), 0);
    std::vector<std::byte> content(8 * kPageBytes, std::byte{0x5a});
    std::fill_n(content.begin() + 3 * kPageBytes, kPageBytes, std::byte{0});
    EXPECT_EQ(WriteRamFile(file_.get(), 0, content), 0);
    std::vector<RamFileSource::RegionFile> files;
    files.push_back({std::move(*DuplicateFd(file_)), 0});
    server_->Add(session_, std::make_shared<RamFileSource>(
                               MemoryLayout{{{"ram", 16 * kPageBytes}}}, std::move(files)));
    server_->Freeze(session_);
  }
  void AskForMap() {
    map_lane_ = Greet(Lane::kUrgent);
    map_lane_->Send(wire::EncodeMapRequest());
    const auto frame = map_lane_->Read();
    map_ = wire::DecodeMap(frame.header, frame.body)->extents;
  }
  // The answers to a grant of all, as text.
  std::vector<std::string> GrantAll() {
    auto lane = Greet(Lane::kBulk);
    lane->Send(wire::EncodeGrant({{0}, {{0}, 16}}));
    std::vector<std::string> answers;
    for (uint64_t pages = 0; pages < 16;) {
      const auto frame = lane->Read();
      if (!frame.here) break;
      const auto range = wire::DecodeRangeFields(std::span(frame.body).first(16))->range;
      const bool zero = frame.header.encoding == 1;
      const bool lost = frame.type() == PageFrame::kUnreadable;
      if (lost) cause_ = wire::DecodeUnreadable(frame.body, false)->text;
      answers.push_back(std::to_string(range.first.value) + "+" +
                        std::to_string(range.count_pages) +
                        (lost ? " lost" : zero ? " zero" : " content"));
      pages += range.count_pages;
    }
    return answers;
  }

  const UniqueFd file_{memfd_create("ram", MFD_CLOEXEC)};
  std::unique_ptr<ScriptedLane> map_lane_;
  std::vector<PageRange> map_;
  std::string cause_;
};

TEST_F(EmptiedFileTest, AsItWasItIsServed) {
  EXPECT_THAT(GrantAll(), testing::ElementsAre("0+3 content", "3+1 zero", "4+4 content", "8+8 zero"));
}

TEST_F(EmptiedFileTest, WhatHadDataAndIsAHoleNowIsNeverZeros) {
  AskForMap();
  EXPECT_THAT(map_, testing::ElementsAre(PageRange{{0}, 8}));
  ASSERT_TRUE(PunchRamFile(file_.get(), 2 * kPageBytes, 4 * kPageBytes).ok());
  EXPECT_THAT(GrantAll(), testing::ElementsAre("0+2 content", "2+4 lost", "6+2 content", "8+8 zero"));
  EXPECT_EQ(cause_, "its memory was freed after the VM had stopped");
}

TEST_F(EmptiedFileTest, WhereItIsNotKnownWhatHadDataNoHoleIsZeros) {
  ASSERT_TRUE(PunchRamFile(file_.get(), 0, 2 * kPageBytes).ok());
  EXPECT_THAT(GrantAll(),
              testing::ElementsAre("0+2 lost", "2+1 content", "3+1 zero", "4+4 content", "8+8 lost"));
  AskForMap();
  EXPECT_THAT(map_, testing::ElementsAre(PageRange{{0}, 16})) << "too late to find out";
  EXPECT_EQ(GrantAll().back(), "8+8 lost");
}

TEST_F(EmptiedFileTest, WhatWasCutOffIsNeverZeros) {
  AskForMap();
  ASSERT_EQ(ftruncate(file_.get(), 6 * kPageBytes), 0);
  EXPECT_THAT(GrantAll(),
              testing::ElementsAre("0+3 content", "3+1 zero", "4+2 content", "6+10 lost"));
  EXPECT_EQ(cause_, "its RAM file ends before it");
}

TEST_F(EmptiedFileTest, RequestsAreRefusedByPage) {
  AskForMap();
  ASSERT_TRUE(PunchRamFile(file_.get(), 0, 16 * kPageBytes).ok());
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  lane->Send(wire::EncodeRequest({2, {{0}, {9}}}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kUnreadable);
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage) << "a hole before and after";
}

}  // namespace
}  // namespace postcopy
