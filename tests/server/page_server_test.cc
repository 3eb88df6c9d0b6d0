// The page server and its lanes against destinations that do what they should, and that do not.
#include "server/page_server.h"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "server/map_answer.h"
#include "tests/server/page_server_fixture.h"

namespace postcopy {
namespace {

using wire::Bytes;
using wire::Lane;
using wire::PageError;
using wire::PageFrame;

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

TEST_F(PageServerTest, AddressThatCannotBeHadIsNamed) {
  const auto second = PageServer::Listen({server_->addresses()[0]});
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(std::string(second.status().message()), testing::HasSubstr(server_->addresses()[0]));
}

}  // namespace
}  // namespace postcopy
