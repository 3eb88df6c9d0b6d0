// The page server and its lanes against destinations that do what they should, and that do not.
#include "server/page_server.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <random>
#include <thread>

#include "gmock/gmock.h"
#include "platform/duplicate_fd.h"
#include "platform/ram_file.h"
#include "server/map_answer.h"
#include "tests/server/memory_source.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {
namespace {

using wire::Bytes;
using wire::Encoding;
using wire::Lane;
using wire::PageError;
using wire::PageFrame;

constexpr uint64_t kPages = 1000;

class PageServerTest : public testing::Test {
 protected:
  PageServerTest() {
    server_->Add(session_, source_);
    server_->Freeze(session_);
  }

  std::unique_ptr<ScriptedLane> Connect() {
    return std::make_unique<ScriptedLane>(
        std::move(*ConnectTcp(server_->addresses()[0], std::chrono::seconds(5))));
  }
  // A lane whose greeting has been answered.
  std::unique_ptr<ScriptedLane> Greet(Lane lane) {
    auto connection = Connect();
    connection->Send(wire::EncodeHello({1, lane, session_}));
    const auto welcome = connection->Read();
    EXPECT_EQ(welcome.type(), PageFrame::kWelcome);
    return connection;
  }
  static int Code(PageError code) { return static_cast<int>(code); }

  const SessionId session_{{std::byte{7}}};
  std::shared_ptr<MemorySource> source_ = std::make_shared<MemorySource>(
      MemoryLayout{{{"ram", kPages * kPageBytes}, {"vga", 16 * kPageBytes}}});
  std::unique_ptr<PageServer> server_ = std::move(PageServer::Listen({"127.0.0.1:0"})).value();
};

TEST_F(PageServerTest, GreetingIsAnsweredWithTheLayout) {
  auto lane = Connect();
  lane->Send(wire::EncodeHello({1, Lane::kUrgent, session_}));
  const auto frame = lane->Read();
  const auto welcome = wire::DecodeWelcome(frame.body);
  ASSERT_TRUE(welcome.ok());
  EXPECT_EQ(welcome->version, 1);
  EXPECT_EQ(welcome->layout.regions, source_->layout().regions);
}

TEST_F(PageServerTest, WhatIsWithdrawnIsRefusedWithTheCause) {
  const auto lane = Greet(Lane::kUrgent);
  server_->Withdraw(session_, "it runs twice");
  EXPECT_FALSE(lane->Read().here);
  EXPECT_FALSE(server_->Serves(session_));
  const auto refusal = [this] {
    auto again = Connect();
    again->Send(wire::EncodeHello({1, Lane::kUrgent, session_}));
    return wire::DecodeError(again->Read().body)->text;
  };
  EXPECT_EQ(refusal(), "it runs twice");
  server_->Remove(session_);
  EXPECT_EQ(refusal(), "no such session");
}

TEST_F(PageServerTest, ItIsKnownWhetherSomebodyIsConnected) {
  EXPECT_FALSE(server_->HasLanes(session_));
  {
    const auto lane = Greet(Lane::kBulk);
    EXPECT_TRUE(server_->HasLanes(session_));
    EXPECT_FALSE(server_->HasLanes({{std::byte{8}}}));
  }
  for (int i = 0; i < 2000 && server_->HasLanes(session_); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_FALSE(server_->HasLanes(session_));
}

TEST_F(PageServerTest, NewerDestinationIsAnsweredWithTheVersionOfBoth) {
  auto lane = Connect();
  lane->Send(wire::EncodeHello({9, Lane::kUrgent, session_}));
  EXPECT_EQ(wire::DecodeWelcome(lane->Read().body)->version, 1);
}

TEST_F(PageServerTest, EveryBadGreetingIsRefusedByItsCode) {
  Bytes wrong_magic = wire::EncodeHello({1, Lane::kUrgent, session_});
  wrong_magic[8] = std::byte{0};
  const SessionId unknown{{std::byte{8}}};
  const std::pair<Bytes, PageError> greetings[] = {
      {wire::EncodeHello({0, Lane::kUrgent, session_}), PageError::kVersion},
      {wire::EncodeHello({1, Lane::kUrgent, unknown}), PageError::kNoSuchSession},
      {wire::EncodeHello({1, Lane::kBulk, unknown}), PageError::kNoSuchSession},
      {wrong_magic, PageError::kMalformed},
      {wire::FrameOf(1, 0, 0, 10, Bytes(10)), PageError::kMalformed},
      {wire::EncodeMapRequest(), PageError::kMalformed},
      {wire::ToBytes(wire::EncodeRequest({1, {{0}, {0}}})), PageError::kMalformed},
      {wire::EncodeGoodbye(), PageError::kMalformed},
  };
  for (const auto& [greeting, code] : greetings) {
    auto lane = Connect();
    lane->Send(greeting);
    EXPECT_EQ(lane->ReadError(), Code(code));
  }
}

TEST_F(PageServerTest, MalformedFramesAreRefusedBeforeAndAfterTheGreeting) {
  const Bytes frames[] = {
      Bytes(64, std::byte{0xff}),
      wire::FrameOf(1, 0, 0, 0xffffffff, {}),               // 4 GiB of greeting
      wire::FrameOf(3, 0, 0, 17, Bytes(17)),
      wire::FrameOf(3, 0, 0, 8, Bytes(8)),
      wire::FrameOf(200, 0, 0, 0, {}),
      wire::ZeroPage(1, {{0}, {1}}),                        // what only a source sends
      wire::ZeroRun({0}, {{0}, 4}),
      wire::EncodeWelcome({1, {{{"ram", kPageBytes}}}}),
  };
  for (const Bytes& frame : frames) {
    auto stranger = Connect();
    stranger->Send(frame);
    EXPECT_EQ(stranger->ReadError(), Code(PageError::kMalformed));
    auto lane = Greet(Lane::kUrgent);
    lane->Send(frame);
    EXPECT_EQ(lane->ReadError(), Code(PageError::kMalformed));
  }
}

TEST_F(PageServerTest, FramesOfTheOtherLaneAndASecondGreetingAreRefused) {
  auto urgent = Greet(Lane::kUrgent);
  urgent->Send(wire::EncodeGrant({{0}, {{0}, 4}}));
  EXPECT_EQ(urgent->ReadError(), Code(PageError::kMalformed));
  auto bulk = Greet(Lane::kBulk);
  bulk->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(bulk->ReadError(), Code(PageError::kMalformed));
  auto map = Greet(Lane::kBulk);
  map->Send(wire::EncodeMapRequest());
  EXPECT_EQ(map->ReadError(), Code(PageError::kMalformed));
  auto twice = Greet(Lane::kUrgent);
  twice->Send(wire::EncodeHello({1, Lane::kUrgent, session_}));
  EXPECT_EQ(twice->ReadError(), Code(PageError::kMalformed));
}

TEST_F(PageServerTest, NothingIsServedBeforeTheVmHasStopped) {
  const SessionId running{{std::byte{9}}};
  server_->Add(running, source_);
  const std::pair<Lane, Bytes> messages[] = {
      {Lane::kUrgent, wire::ToBytes(wire::EncodeRequest({1, {{0}, {0}}}))},
      {Lane::kUrgent, wire::EncodeMapRequest()},
      {Lane::kBulk, wire::ToBytes(wire::EncodeGrant({{0}, {{0}, 1}}))},
  };
  for (const auto& [kind, message] : messages) {
    auto lane = Connect();
    lane->Send(wire::EncodeHello({1, kind, running}));
    EXPECT_EQ(lane->Read().type(), PageFrame::kWelcome);
    lane->Send(message);
    EXPECT_EQ(lane->ReadError(), Code(PageError::kNotNow));
  }
  auto lane = Connect();
  lane->Send(wire::EncodeHello({1, Lane::kUrgent, running}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kWelcome);
  server_->Freeze(running);
  lane->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);
}

TEST_F(PageServerTest, PagesOutsideGuestRamAreRefused) {
  const PageAddress outside[] = {{{0}, {kPages}}, {{1}, {16}}, {{2}, {0}}, {{0}, {~uint64_t{0}}},
                                 {{0xffffffff}, {0}}};
  for (const PageAddress& page : outside) {
    auto lane = Greet(Lane::kUrgent);
    lane->Send(wire::EncodeRequest({1, page}));
    EXPECT_EQ(lane->ReadError(), Code(PageError::kOutOfRange));
  }
  const wire::RangeFields ranges[] = {{{0}, {{kPages}, 1}}, {{0}, {{kPages - 1}, 2}},
                                      {{2}, {{0}, 1}}, {{0}, {{~uint64_t{0}}, 64}}};
  for (const auto& range : ranges) {
    auto lane = Greet(Lane::kBulk);
    lane->Send(wire::EncodeGrant(range));
    EXPECT_EQ(lane->ReadError(), Code(PageError::kOutOfRange));
  }
}

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


TEST_F(PageServerTest, PipelinedRequestsAreEachAnsweredWithTheirIdAndContent) {
  auto lane = Greet(Lane::kUrgent);
  Bytes all;
  for (uint32_t i = 0; i < 200; ++i) {
    wire::Append(all, wire::ToBytes(wire::EncodeRequest({1000 + i, {{0}, {i * 4 + i % 4}}})));
  }
  lane->Send(all);
  for (uint32_t i = 0; i < 200; ++i) {
    const auto frame = lane->Read();
    ASSERT_EQ(frame.type(), PageFrame::kPage);
    const auto page = wire::DecodePageFields(std::span(frame.body).first(wire::kPageFieldsBytes));
    EXPECT_EQ(page->id, 1000 + i);
    EXPECT_EQ(page->page.page.value, i * 4 + i % 4);
    const bool zero = MemorySource::IsZeroPage(i % 4);
    EXPECT_EQ(frame.header.encoding, zero ? 1 : 0);
    ASSERT_EQ(frame.body.size(), wire::kPageFieldsBytes + (zero ? 0 : kPageBytes));
    if (!zero) {
      EXPECT_EQ(wire::LoadLittleEndian<uint64_t>(frame.body.data() + 16), page->page.page.value);
    }
  }
}

TEST_F(PageServerTest, GrantIsAnsweredByRunsThatCoverExactlyItsPagesInOrder) {
  auto lane = Greet(Lane::kBulk);
  lane->Send(wire::EncodeGrant({{0}, {{10}, 200}}));
  PageIndex next{10};
  while (next < PageIndex{210}) {
    const auto frame = lane->Read();
    ASSERT_EQ(frame.type(), PageFrame::kRun);
    const auto run = wire::DecodeRangeFields(std::span(frame.body).first(wire::kPageFieldsBytes));
    ASSERT_TRUE(run.ok());
    ASSERT_EQ(run->range.first, next);
    ASSERT_LE(run->range.count_pages, wire::kMaxRunPages);
    const bool zero = frame.header.encoding == 1;
    for (uint64_t i = 0; i < run->range.count_pages; ++i) {
      const uint64_t page = next.value + i;
      ASSERT_EQ(zero, MemorySource::IsZeroPage(page));
      if (!zero) {
        ASSERT_EQ(wire::LoadLittleEndian<uint64_t>(frame.body.data() + 16 + i * kPageBytes), page);
      }
    }
    next = run->range.end();
  }
  EXPECT_EQ(next, PageIndex{210});
}

TEST_F(PageServerTest, TwoLanesAreServedAtTheSameTime) {
  source_->Hold();
  auto urgent = Greet(Lane::kUrgent);
  auto bulk = Greet(Lane::kBulk);
  urgent->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  bulk->Send(wire::EncodeGrant({{0}, {{0}, 1}}));
  source_->AwaitHeld(2);  // neither waits for the other
  source_->Open();
  EXPECT_EQ(urgent->Read().type(), PageFrame::kPage);
  EXPECT_EQ(bulk->Read().type(), PageFrame::kRun);
}

TEST_F(PageServerTest, MapHasAllExtentsInPiecesThatKeepTheLimit) {
  std::vector<PageRange> extents;
  for (uint64_t i = 0; i < 2 * wire::kMaxMapExtents + 5; ++i) extents.push_back({{i * 2}, 1});
  auto source = std::make_shared<MemorySource>(
      MemoryLayout{{{"ram", extents.size() * 2 * kPageBytes}, {"vga", 16 * kPageBytes}}});
  source->SetExtents(extents);
  const SessionId session{{std::byte{1}}};
  server_->Add(session, source);
  server_->Freeze(session);
  auto lane = Connect();
  lane->Send(wire::EncodeHello({1, Lane::kUrgent, session}));
  lane->Read();
  lane->Send(wire::EncodeMapRequest());
  std::vector<PageRange> got;
  for (bool last = false; !last;) {
    const auto frame = lane->Read();
    const auto map = wire::DecodeMap(frame.header, frame.body);
    ASSERT_TRUE(map.ok());
    got.insert(got.end(), map->extents.begin(), map->extents.end());
    last = map->last;
    EXPECT_EQ(map->region.value, last ? 1u : 0u);  // the second region has no data
  }
  EXPECT_EQ(got, extents);
}

TEST_F(PageServerTest, HalfAFrameWaitsAndTheRestCompletesIt) {
  auto lane = Greet(Lane::kUrgent);
  const Bytes request = wire::ToBytes(wire::EncodeRequest({5, {{0}, {1}}}));
  for (const std::byte b : request) lane->Send(Bytes{b});
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);
}

TEST_F(PageServerTest, GoodbyeAndACloseInTheMiddleOfAFrameEndTheLaneQuietly) {
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeGoodbye());
  EXPECT_TRUE(lane->Ended());
  auto half = Greet(Lane::kUrgent);
  half->Send(Bytes(5));
  half->Close();
  auto next = Greet(Lane::kUrgent);
  next->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(next->Read().type(), PageFrame::kPage);
}

TEST_F(PageServerTest, RemoveEndsLanesThatAreInTheMiddleOfAnAnswerAndReleasesTheSource) {
  source_->Hold();
  auto urgent = Greet(Lane::kUrgent);
  auto bulk = Greet(Lane::kBulk);
  urgent->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  bulk->Send(wire::EncodeGrant({{0}, {{0}, 500}}));
  source_->AwaitHeld(2);
  std::weak_ptr<MemorySource> alive = source_;
  MemorySource& source = *source_;
  source_.reset();
  std::thread opener([&] { source.Open(); });
  server_->Remove(session_);
  opener.join();
  EXPECT_TRUE(alive.expired());
  EXPECT_TRUE(urgent->Ended());
  EXPECT_TRUE(bulk->Ended());
}

TEST_F(PageServerTest, RemoveDoesNotWaitForALaneWhoseDestinationReadsNothing) {
  auto bulk = Greet(Lane::kBulk);
  for (int i = 0; i < 64; ++i) bulk->Send(wire::EncodeGrant({{0}, {{0}, kPages}}));
  server_->Remove(session_);  // the lane's send is full and blocks; it is cut
  EXPECT_TRUE(bulk->Ended());
}

TEST_F(PageServerTest, NewUrgentLaneEndsTheSessionsEarlierLanesAndNobodyElses) {
  const SessionId other{{std::byte{2}}};
  server_->Add(other, source_);
  server_->Freeze(other);
  auto elsewhere = Connect();
  elsewhere->Send(wire::EncodeHello({1, Lane::kUrgent, other}));
  elsewhere->Read();
  auto urgent = Greet(Lane::kUrgent);
  auto bulk = Greet(Lane::kBulk);
  for (int i = 0; i < 64; ++i) bulk->Send(wire::EncodeGrant({{0}, {{0}, kPages}}));  // its send is full
  auto again = Greet(Lane::kUrgent);
  EXPECT_TRUE(urgent->Ended());
  EXPECT_TRUE(bulk->Ended());
  for (const auto& lane : {&elsewhere, &again}) {
    (*lane)->Send(wire::EncodeRequest({1, {{0}, {0}}}));
    EXPECT_EQ((*lane)->Read().type(), PageFrame::kPage);
  }
}

TEST_F(PageServerTest, MapThatTakesLongHoldsNobodyUpAndGivesSignsOfLife) {
  source_->DelayExtents(3 * MapAnswer::kSignOfLife);
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeMapRequest());
  lane->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);
  int signs = 0;
  for (;; ++signs) {
    const auto frame = lane->Read();
    ASSERT_EQ(frame.type(), PageFrame::kMap);
    const auto map = wire::DecodeMap(frame.header, frame.body);
    ASSERT_TRUE(map.ok());
    if (!map->extents.empty() || map->last) break;
  }
  EXPECT_GE(signs, 2);
}

TEST_F(PageServerTest, LaneThatEndsDoesNotWaitForItsMap) {
  source_->DelayExtents(10 * MapAnswer::kSignOfLife);
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeMapRequest());
  lane->Send(wire::EncodeGoodbye());
  const auto begun = std::chrono::steady_clock::now();
  while (lane->Read().here) {
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begun, 5 * MapAnswer::kSignOfLife);
}

TEST_F(PageServerTest, ConnectionsThatWereGivenUpEndNobodysLanes) {
  auto urgent = Greet(Lane::kUrgent);
  for (int i = 0; i < 20; ++i) {
    auto stale = Connect();
    stale->Send(wire::EncodeHello({1, Lane::kUrgent, session_}));
    stale->Close();
  }
  urgent->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  auto frame = urgent->Read();
  if (!frame.here) {  // one may have greeted before it was given up
    urgent = Greet(Lane::kUrgent);
    urgent->Send(wire::EncodeRequest({1, {{0}, {0}}}));
    frame = urgent->Read();
  }
  EXPECT_EQ(frame.type(), PageFrame::kPage);
}

TEST_F(PageServerTest, RemovedSessionIsUnknownAndAnotherOneServesOn) {
  const SessionId other{{std::byte{2}}};
  server_->Add(other, source_);
  server_->Freeze(other);
  auto lane = Connect();
  lane->Send(wire::EncodeHello({1, Lane::kUrgent, other}));
  lane->Read();
  server_->Remove(session_);
  server_->Remove(session_);
  auto late = Connect();
  late->Send(wire::EncodeHello({1, Lane::kUrgent, session_}));
  EXPECT_EQ(late->ReadError(), Code(PageError::kNoSuchSession));
  lane->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);
}

TEST_F(PageServerTest, OneLaneTooManyIsClosedAndARoomThatIsFreeAgainIsUsed) {
  std::vector<std::unique_ptr<ScriptedLane>> lanes;
  for (size_t i = 0; i < PageServer::kMaxLanes; ++i) lanes.push_back(Greet(Lane::kBulk));
  EXPECT_TRUE(Connect()->Ended());
  lanes[17]->Send(wire::EncodeGoodbye());
  EXPECT_TRUE(lanes[17]->Ended());
  // The lane's thread may still be on its way out: a connection is refused until it is gone.
  for (bool served = false; !served;) {
    auto lane = Connect();
    lane->Send(wire::EncodeHello({1, Lane::kBulk, session_}));
    served = lane->Read().here;
  }
}

TEST_F(PageServerTest, ConnectionsThatNeverGreetDoNotKeepOthersOut) {
  std::vector<std::unique_ptr<ScriptedLane>> silent;
  for (size_t i = 0; i < 2 * PageServer::kMaxLanes; ++i) silent.push_back(Connect());
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);
  EXPECT_TRUE(silent.front()->Ended());
}

TEST_F(PageServerTest, LanesThatHaveEndedKeepNoDescriptors) {
  const auto open_descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = open_descriptors();
  for (int i = 0; i < 20; ++i) Greet(Lane::kBulk)->Send(wire::EncodeGoodbye());
  while (open_descriptors() > before) std::this_thread::yield();
}

TEST_F(PageServerTest, GarbageOfAnyKindNeverTakesTheServerDown) {
  std::mt19937_64 random(23);
  for (int round = 0; round < 100; ++round) {
    auto lane = round % 2 == 0 ? Connect() : Greet(random() % 2 == 0 ? Lane::kUrgent : Lane::kBulk);
    Bytes noise(1 + random() % 300);
    for (std::byte& b : noise) b = static_cast<std::byte>(random() % 4 == 0 ? random() : random() % 12);
    lane->Send(noise);
    lane->Close();
  }
  auto lane = Greet(Lane::kUrgent);
  lane->Send(wire::EncodeRequest({1, {{0}, {0}}}));
  EXPECT_EQ(lane->Read().type(), PageFrame::kPage);
}

TEST_F(PageServerTest, AddressThatCannotBeHadIsNamed) {
  const auto second = PageServer::Listen({server_->addresses()[0]});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr(server_->addresses()[0]));
}

}  // namespace
}  // namespace postcopy
