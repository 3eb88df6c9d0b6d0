// TcpTransport against a page server that says what the test tells it to.
#include "transport/tcp_transport.h"

#include <thread>
#include <utility>
#include <vector>

#include "tests/transport/tcp_transport_fixture.h"

namespace postcopy {
namespace {

using testing::HasSubstr;
using wire::Bytes;

TEST_F(TcpTransportTest, GreetsOnEveryLaneAndTakesTheLayout) {
  std::vector<wire::Hello> hellos;
  std::thread server([&] {
    for (int i = 0; i < 3; ++i) {
      lanes_.push_back(listener_->Accept());
      hellos.push_back(*wire::DecodeHello(listener_->last_hello().body));
      lanes_.back()->Send(wire::EncodeWelcome({1, kLayout}));
    }
  });
  const auto transport = TcpTransport::Connect(Options(2));
  server.join();
  ASSERT_TRUE(transport.ok());
  EXPECT_EQ((*transport)->layout().regions, kLayout.regions);
  EXPECT_EQ((*transport)->bulk_lanes(), 2u);
  ASSERT_EQ(hellos.size(), 3u);
  EXPECT_EQ(hellos[0].lane, wire::Lane::kUrgent);
  EXPECT_EQ(hellos[1].lane, wire::Lane::kBulk);
  for (const auto& hello : hellos) EXPECT_EQ(hello.session, Options(0).session);
}

TEST_F(TcpTransportTest, EveryBadGreetingIsRefusedWithItsCause) {
  const std::pair<Bytes, const char*> greetings[] = {
      {Bytes{}, "connection closed"},
      {Bytes(64, std::byte{0xff}), "malformed greeting"},
      {wire::EncodeGoodbye(), "greeting expected"},
      {wire::ZeroPage(1, {{0}, {1}}), "malformed greeting"},
      {wire::EncodeWelcome({2, kLayout}), "version 2"},
      {wire::EncodeWelcome({0, kLayout}), "version 0"},
      {wire::EncodeWelcome({1, {}}), "malformed WELCOME"},
      {wire::FrameOf(2, 0, 0, 1 << 30, {}), "malformed greeting"},
      {wire::EncodeError(wire::PageError::kNoSuchSession, "no such session"), "no such session"},
      {wire::EncodeError(wire::PageError::kVersion, "too old"), "too old"},
      {wire::FrameOf(9, 0, 0, 2, Bytes(2)), "malformed ERROR"},
  };
  for (const auto& [greeting, cause] : greetings) {
    lanes_.clear();
    const auto transport = ConnectAgainst({greeting});
    ASSERT_FALSE(transport.ok()) << cause;
    EXPECT_THAT(transport.error().message, HasSubstr(cause));
  }
}

TEST_F(TcpTransportTest, NotNowIsUnavailableSoThatTheCallerTriesAgain) {
  const auto transport =
      ConnectAgainst({wire::EncodeError(wire::PageError::kNotNow, "the VM has not stopped yet")});
  ASSERT_FALSE(transport.ok());
  EXPECT_EQ(transport.error().code, ErrorCode::kUnavailable);
}

TEST_F(TcpTransportTest, LanesThatDisagreeAboutTheLayoutAreRefused) {
  const MemoryLayout other{{{"ram", kPageBytes}}};
  const auto transport =
      ConnectAgainst({wire::EncodeWelcome({1, kLayout}), wire::EncodeWelcome({1, other})}, 1);
  ASSERT_FALSE(transport.ok());
  EXPECT_THAT(transport.error().message, HasSubstr("differ in their layout"));
}

TEST_F(TcpTransportTest, ServerThatSaysNothingTimesOut) {
  TcpTransportOptions options = Options(0);
  options.connect_timeout = std::chrono::milliseconds(50);
  const auto transport = TcpTransport::Connect(options);  // the kernel accepts, nobody answers
  ASSERT_FALSE(transport.ok());
  EXPECT_EQ(transport.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(transport.error().message, HasSubstr(listener_->address()));
}

TEST_F(TcpTransportTest, SecondAddressIsTriedWhenTheFirstRefuses) {
  TcpTransportOptions options = Options(0);
  {
    const ScriptedListener gone;
    options.addresses.insert(options.addresses.begin(), gone.address());
  }
  std::thread server([&] {
    lanes_.push_back(listener_->Accept());
    lanes_.back()->Send(wire::EncodeWelcome({1, kLayout}));
  });
  EXPECT_TRUE(TcpTransport::Connect(options).ok());
  server.join();
}

TEST_F(TcpTransportTest, NobodyThereNamesTheAddress) {
  TcpTransportOptions options = Options(0);
  {
    const ScriptedListener gone;
    options.addresses = {gone.address()};
  }
  const auto transport = TcpTransport::Connect(options);
  ASSERT_FALSE(transport.ok());
  EXPECT_THAT(transport.error().message, HasSubstr("connect tcp://" + options.addresses[0]));
  EXPECT_EQ(transport.error().code, ErrorCode::kUnavailable);
}

TEST_F(TcpTransportTest, MessagesGoOutAsTheDocumentSays) {
  Begin(2);
  EXPECT_TRUE(transport_->Request(7, {{0}, {123}}));
  EXPECT_TRUE(transport_->RequestMap());
  EXPECT_TRUE(transport_->Grant(1, {1}, {{4}, 5}));
  const auto request = lanes_[0]->Read();
  ASSERT_TRUE(request.here);
  EXPECT_EQ(request.type(), wire::PageFrame::kRequest);
  EXPECT_EQ(wire::DecodePageFields(request.body)->page, (PageAddress{{0}, {123}}));
  EXPECT_TRUE(transport_->RequestMap()) << "sent once a lane";
  EXPECT_TRUE(transport_->Request(7, {{0}, {124}}));
  EXPECT_EQ(lanes_[0]->Read().type(), wire::PageFrame::kMapRequest);
  const auto second = lanes_[0]->Read();
  EXPECT_EQ(second.type(), wire::PageFrame::kRequest);
  EXPECT_NE(wire::DecodePageFields(second.body)->id, wire::DecodePageFields(request.body)->id)
      << "whatever ids the caller has";
  const auto grant = lanes_[2]->Read();
  EXPECT_EQ(grant.type(), wire::PageFrame::kGrant);
  EXPECT_EQ(wire::DecodeRangeFields(grant.body)->range, (PageRange{{4}, 5}));
}

TEST_F(TcpTransportTest, PagesRunsAndMapsReachTheSinkWhole) {
  Begin(1);
  transport_->Request(7, {{0}, {123}});
  transport_->Request(8, {{0}, {124}});
  transport_->RequestMap();
  lanes_[0]->Send(wire::RawPage(0, {{0}, {123}}));
  lanes_[0]->Send(wire::ZeroPage(1, {{0}, {124}}));
  lanes_[0]->Send(wire::EncodeMap({{0}, {{{0}, 10}, {{20}, 5}}, true}));
  EXPECT_THAT(sink_.Await(3),
              testing::ElementsAre("page 7 123 raw 4096", "page 8 124 zero 0", "map 2 last"));
  transport_->Grant(0, {0}, {{0}, 100});
  transport_->Grant(0, {0}, {{100}, 28});
  lanes_[1]->Send(wire::RawRun({0}, {{0}, 64}));
  lanes_[1]->Send(wire::ZeroRun({0}, {{64}, 36}));
  lanes_[1]->Send(wire::ZeroRun({0}, {{100}, 28}));
  EXPECT_EQ(sink_.AwaitRunPages(128), 128u);
  EXPECT_EQ(sink_.run_bytes(), 64 * kPageBytes);
}

TEST_F(TcpTransportTest, LaneEndsOnWhatTheProtocolForbids) {
  const std::pair<Bytes, const char*> on_urgent[] = {
      {wire::RawPage(1, {{0}, {kPages}}), "not requested"},          // outside its region
      {wire::ZeroPage(1, {{2}, {0}}), "not requested"},              // no such region
      {wire::ZeroPage(1, {{0}, {~uint64_t{0}}}), "not requested"},
      {wire::ZeroRun({0}, {{0}, 4}), "not requested"},               // bulk on the urgent lane
      {wire::EncodeMap({{0}, {{{10}, 5}, {{12}, 1}}, true}), "hole map"},
      {wire::EncodeMap({{0}, {{{kPages - 1}, 2}}, true}), "hole map"},
      {wire::EncodeMap({{2}, {}, true}), "hole map"},
      {wire::EncodeWelcome({1, kLayout}), "unexpected frame of type 2"},
      {wire::EncodeGoodbye(), "unexpected frame of type 10"},
      {wire::EncodeMap({{0}, {{{10}, 5}}, true}), "hole map that was not requested"},
      {wire::EncodeUnreadable(wire::PageFields{0, {{0}, {1}}}, "I/O error"), "not requested"},
      {wire::EncodeUnreadable(wire::RangeFields{{0}, {{1}, 1}}, "I/O error"), "not requested"},
      {wire::FrameOf(11, 0, 0, 8, Bytes(8)), "malformed UNREADABLE"},
      {wire::FrameOf(77, 0, 0, 0, {}), "malformed frame"},
      {wire::EncodeError(wire::PageError::kReadFailed, "read guest memory: I/O error"),
       "page server refused: read guest memory: I/O error"},
  };
  for (const auto& [bytes, cause] : on_urgent) EXPECT_THAT(InterruptedBy(bytes, 0), HasSubstr(cause));
  const std::pair<Bytes, const char*> on_bulk[] = {
      {wire::ZeroPage(1, {{0}, {1}}), "not requested"},
      {wire::ZeroRun({0}, {{kPages - 1}, 2}), "not requested"},
      {wire::EncodeMap({{0}, {}, true}), "unexpected frame of type 8"},
      {wire::ZeroRun({0}, {{0}, 4}), "not requested"},
      {wire::EncodeUnreadable(wire::RangeFields{{0}, {{0}, 4}}, "I/O error"), "not requested"},
      {wire::FrameOf(11, 0, 0, 18, Bytes(18)), "malformed UNREADABLE"},  // of no page
      {wire::ZeroRun({0}, {{0}, 65}), "malformed frame"},
  };
  for (const auto& [bytes, cause] : on_bulk) EXPECT_THAT(InterruptedBy(bytes, 1), HasSubstr(cause));
}

// Frames that would be right if something else had been asked for.
TEST_F(TcpTransportTest, NothingThatWasNotRequestedIsPassedOn) {
  const auto both = [](const Bytes& first, const Bytes& second) {
    Bytes all = first;
    wire::Append(all, second);
    return all;
  };
  const auto ask = [](PageTransport& transport) {
    EXPECT_TRUE(transport.Request(7, {{0}, {5}}));
    EXPECT_TRUE(transport.RequestMap());
    EXPECT_TRUE(transport.Grant(0, {0}, {{100}, 10}));
    EXPECT_TRUE(transport.Grant(0, {1}, {{0}, 4}));
    EXPECT_TRUE(transport.Grant(1, {0}, {{200}, 10}));
  };
  const std::pair<Bytes, const char*> on_urgent[] = {
      {wire::RawPage(7, {{0}, {5}}), "content that was not requested"},  // no such number
      {wire::RawPage(0, {{0}, {6}}), "content that was not requested"},  // another page
      {wire::RawPage(0, {{1}, {5}}), "content that was not requested"},
      {both(wire::RawPage(0, {{0}, {5}}), wire::RawPage(0, {{0}, {5}})),
       "content that was not requested"},  // once more
      {both(wire::EncodeUnreadable(wire::PageFields{0, {{0}, {5}}}, "no"),
            wire::RawPage(0, {{0}, {5}})),
       "content that was not requested"},
      {both(wire::EncodeMap({{0}, {}, true}), wire::EncodeMap({{0}, {}, true})),
       "hole map that was not requested"},  // after its end
      {both(wire::EncodeMap({{0}, {{{50}, 10}}, false}), wire::EncodeMap({{0}, {{{59}, 1}}, true})),
       "out of order"},
      {both(wire::EncodeMap({{1}, {{{0}, 1}}, false}), wire::EncodeMap({{0}, {{{0}, 1}}, true})),
       "out of order"},
  };
  for (const auto& [bytes, cause] : on_urgent) {
    EXPECT_THAT(InterruptedBy(bytes, 0, ask), HasSubstr(cause));
  }
  const Bytes on_bulk[] = {
      wire::ZeroRun({0}, {{101}, 1}),                                    // not the next
      wire::ZeroRun({0}, {{99}, 2}),                                     // begins before
      wire::ZeroRun({0}, {{100}, 11}),                                   // more than granted
      wire::ZeroRun({1}, {{0}, 4}),                                      // not the oldest
      wire::ZeroRun({0}, {{200}, 10}),                                   // of another lane
      wire::RawRun({0}, {{100}, 11}),
      both(wire::ZeroRun({0}, {{100}, 4}), wire::ZeroRun({0}, {{100}, 4})),
      both(wire::ZeroRun({0}, {{100}, 4}), wire::ZeroRun({0}, {{105}, 1})),
      both(wire::EncodeUnreadable(wire::RangeFields{{0}, {{100}, 10}}, "no"),
           wire::ZeroRun({0}, {{100}, 1})),
      both(both(wire::ZeroRun({0}, {{100}, 10}), wire::ZeroRun({1}, {{0}, 4})),
           wire::ZeroRun({1}, {{0}, 1})),
  };
  for (const Bytes& bytes : on_bulk) {
    EXPECT_THAT(InterruptedBy(bytes, 1, ask), HasSubstr("content that was not requested"));
  }
}

TEST_F(TcpTransportTest, WhatCannotBeReadIsToldByNameAndTheLaneGoesOn) {
  Begin(1);
  transport_->Request(7, {{0}, {5}});
  transport_->Request(8, {{0}, {6}});
  lanes_[0]->Send(wire::EncodeUnreadable(wire::PageFields{0, {{0}, {5}}}, "I/O error"));
  lanes_[0]->Send(wire::ZeroPage(1, {{0}, {6}}));
  transport_->Grant(0, {1}, {{2}, 4});
  EXPECT_THAT(sink_.Await(2),
              testing::ElementsAre("unreadable 5+1 urgent: page server: it cannot read page 5 of "
                                   "RAM block ram: I/O error",
                                   "page 8 6 zero 0"));
  lanes_[1]->Send(wire::ZeroRun({1}, {{2}, 1}));
  lanes_[1]->Send(wire::EncodeUnreadable(wire::RangeFields{{1}, {{3}, 2}}, "I/O error"));
  lanes_[1]->Send(wire::ZeroRun({1}, {{5}, 1}));
  EXPECT_THAT(sink_.Await(5)[3], "unreadable 3+2 bulk: page server: it cannot read page 3 of RAM "
                                 "block vga: I/O error");
}

TEST_F(TcpTransportTest, CloseInTheMiddleOfAPageDeliversNothingOfIt) {
  Begin(0);
  Bytes half = wire::RawPage(7, {{0}, {123}});
  half.resize(half.size() / 2);
  lanes_[0]->Send(half);
  lanes_[0]->Close();
  EXPECT_THAT(sink_.Await(1), testing::ElementsAre(HasSubstr("interrupted: ")));
}

TEST_F(TcpTransportTest, CloseInTheMiddleOfARunDeliversItsWholePages) {
  Begin(1);
  transport_->Grant(0, {0}, {{0}, 8});
  Bytes part = wire::RawRun({0}, {{0}, 8});
  part.resize(wire::kPageFrameBytes + 5 * kPageBytes + 77);
  lanes_[1]->Send(part);
  EXPECT_EQ(sink_.AwaitRunPages(5), 5u);
  lanes_[1]->Close();
  lanes_[0]->Close();
  while (sink_.Await(1).back().rfind("interrupted", 0) != 0) std::this_thread::yield();
  EXPECT_EQ(sink_.run_bytes(), 5 * kPageBytes);
}

TEST_F(TcpTransportTest, StopSaysGoodbyeAndReportsNoLane) {
  Begin(2);
  transport_->Stop();
  for (const auto& lane : lanes_) {
    EXPECT_EQ(lane->Read().type(), wire::PageFrame::kGoodbye);
    EXPECT_TRUE(lane->Ended());
  }
  EXPECT_THAT(sink_.Await(0), testing::IsEmpty());
  EXPECT_FALSE(transport_->Request(1, {{0}, {0}}));
}

}  // namespace
}  // namespace postcopy
