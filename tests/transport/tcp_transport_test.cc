// TcpTransport against a page server that says what the test tells it to.
#include "transport/tcp_transport.h"

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "gmock/gmock.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {
namespace {

using testing::HasSubstr;
using wire::Bytes;

constexpr uint64_t kPages = 1000;
const MemoryLayout kLayout{{{"ram", kPages * kPageBytes}, {"vga", 16 * kPageBytes}}};

// What the transport delivered, as lines of text.
class RecordingSink final : public PageSink {
 public:
  void OnPage(uint32_t id, PageAddress page, wire::Encoding encoding,
              std::span<const std::byte> content) override {
    Add("page " + std::to_string(id) + " " + std::to_string(page.page.value) +
        (encoding == wire::Encoding::kZero ? " zero" : " raw") + " " + std::to_string(content.size()));
  }
  void OnRun(size_t lane, RegionId region, PageRange range, wire::Encoding,
             std::span<const std::byte> content) override {
    // A run may come in several pieces: its pages are counted.
    const std::lock_guard lock(mutex_);
    run_pages_ += range.count_pages;
    run_bytes_ += content.size();
    lines_.push_back("run on " + std::to_string(lane) + " region " + std::to_string(region.value));
    changed_.notify_all();
  }
  void OnMap(const wire::MapFields& map) override {
    Add("map " + std::to_string(map.extents.size()) + (map.last ? " last" : ""));
  }
  void OnUnreadable(std::optional<size_t> lane, RegionId, PageRange range,
                    const Error& cause) override {
    Add("unreadable " + std::to_string(range.first.value) + "+" +
        std::to_string(range.count_pages) + (lane.has_value() ? " bulk: " : " urgent: ") +
        cause.message);
  }
  void OnInterrupted(const Error& cause) override { Add("interrupted: " + cause.message); }
  void OnUrgentRestored() override { Add("urgent restored"); }
  void OnBulkRestored() override { Add("bulk restored"); }

  // Blocks until as many lines are there.
  std::vector<std::string> Await(size_t count) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return lines_.size() >= count; });
    return lines_;
  }
  uint64_t AwaitRunPages(uint64_t pages) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::seconds(10), [&] { return run_pages_ >= pages; });
    return run_pages_;
  }
  uint64_t run_bytes() {
    const std::lock_guard lock(mutex_);
    return run_bytes_;
  }

 private:
  void Add(std::string line) {
    const std::lock_guard lock(mutex_);
    lines_.push_back(std::move(line));
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::string> lines_;
  uint64_t run_pages_ = 0;
  uint64_t run_bytes_ = 0;
};

class TcpTransportTest : public testing::Test {
 protected:
  TcpTransportOptions Options(size_t bulk_lanes) {
    TcpTransportOptions options;
    options.addresses = {listener_->address()};
    options.session = *SessionId::Parse("00112233445566778899aabbccddeeff");
    options.bulk_lanes = bulk_lanes;
    return options;
  }
  // Connects while the server answers each greeting with the next of `answers`.
  Result<std::unique_ptr<PageTransport>> ConnectAgainst(const std::vector<Bytes>& answers,
                                                        size_t bulk_lanes = 0) {
    std::thread server([&] {
      for (const Bytes& answer : answers) {
        lanes_.push_back(listener_->Accept());
        lanes_.back()->Send(answer);
        if (answer.empty()) lanes_.back()->Close();
      }
    });
    auto transport = TcpTransport::Connect(Options(bulk_lanes));
    server.join();
    return transport;
  }
  // A connected transport of `bulk_lanes`; lanes_ are the server's ends, urgent first.
  void Begin(size_t bulk_lanes) {
    auto transport = ConnectAgainst(
        std::vector<Bytes>(bulk_lanes + 1, wire::EncodeWelcome({1, kLayout})), bulk_lanes);
    ASSERT_TRUE(transport.ok()) << transport.error().message;
    transport_ = std::move(*transport);
    ASSERT_TRUE(transport_->Start(sink_).ok());
  }
  // The server's ends of the next `count` lanes that are made, greeted.
  std::vector<std::unique_ptr<ScriptedLane>> AcceptLanes(size_t count) {
    std::vector<std::unique_ptr<ScriptedLane>> lanes;
    for (size_t i = 0; i < count; ++i) {
      lanes.push_back(listener_->Accept());
      lanes.back()->Send(wire::EncodeWelcome({1, kLayout}));
    }
    return lanes;
  }
  // What interrupts a connected transport when the server sends `bytes` on a lane.
  std::string InterruptedBy(const Bytes& bytes, size_t lane,
                            const std::function<void(PageTransport&)>& ask = {}) {
    constexpr size_t bulk_lanes = 2;
    lanes_.clear();
    listener_ = std::make_unique<ScriptedListener>();  // in whose queue the transport before has no lane
    RecordingSink sink;
    auto transport = ConnectAgainst(
        std::vector<Bytes>(bulk_lanes + 1, wire::EncodeWelcome({1, kLayout})), bulk_lanes);
    EXPECT_TRUE(transport.ok());
    EXPECT_TRUE((*transport)->Start(sink).ok());
    if (ask) ask(**transport);
    lanes_[lane]->Send(bytes);
    std::string interrupted;
    for (size_t count = 1; interrupted.empty(); ++count) {
      const auto lines = sink.Await(count);
      if (lines.size() < count) break;
      if (lines.back().rfind("interrupted", 0) == 0) interrupted = lines.back();
    }
    for (const auto& each : lanes_) EXPECT_TRUE(each->Ended());
    (*transport)->Stop();
    return interrupted;
  }

  std::unique_ptr<ScriptedListener> listener_ = std::make_unique<ScriptedListener>();
  std::vector<std::unique_ptr<ScriptedLane>> lanes_;
  RecordingSink sink_;
  std::unique_ptr<PageTransport> transport_;
};

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

TEST_F(TcpTransportTest, OneLaneThatIsClosedEndsAllAndAllAreMadeAnewTheUrgentOneFirst) {
  for (size_t closed = 0; closed < 3; ++closed) {
    SCOPED_TRACE(closed);
    lanes_.clear();
    listener_ = std::make_unique<ScriptedListener>();  // in whose queue the transport before has no lane
    RecordingSink sink;
    auto transport = ConnectAgainst(
        std::vector<Bytes>(3, wire::EncodeWelcome({1, kLayout})), 2);
    ASSERT_TRUE(transport.ok());
    ASSERT_TRUE((*transport)->Start(sink).ok());
    lanes_[closed]->Close();
    const auto lanes = AcceptLanes(3);
    EXPECT_THAT(sink.Await(3), testing::ElementsAre(HasSubstr("interrupted: "), "urgent restored",
                                                    "bulk restored"));
    for (const auto& lane : lanes_) EXPECT_TRUE(lane->Ended());
    EXPECT_TRUE((*transport)->Request(9, {{0}, {5}}));
    EXPECT_EQ(lanes[0]->Read().type(), wire::PageFrame::kRequest);
    EXPECT_TRUE((*transport)->Grant(1, {0}, {{0}, 4}));
    EXPECT_EQ(lanes[2]->Read().type(), wire::PageFrame::kGrant);
    (*transport)->Stop();
    EXPECT_EQ(sink.Await(3).size(), 3u);
  }
}

TEST_F(TcpTransportTest, TheGuestIsServedBeforeTheBulkLanesStand) {
  Begin(1);
  lanes_[1]->Close();
  const auto urgent = AcceptLanes(1);
  sink_.Await(2);
  EXPECT_TRUE(transport_->Request(9, {{0}, {5}}));
  EXPECT_EQ(urgent[0]->Read().type(), wire::PageFrame::kRequest);
  urgent[0]->Send(wire::ZeroPage(0, {{0}, {5}}));
  EXPECT_EQ(sink_.Await(3).back(), "page 9 5 zero 0");
  EXPECT_FALSE(transport_->Grant(0, {0}, {{0}, 4}));
}

TEST_F(TcpTransportTest, ASourceThatSaysNothingOfWhatWasAskedForIsGivenUp) {
  Begin(0);
  std::this_thread::sleep_for(TcpTransport::kSilence);  // nothing was asked for
  EXPECT_THAT(sink_.Await(0), testing::IsEmpty());
  EXPECT_TRUE(transport_->Request(9, {{0}, {5}}));
  EXPECT_THAT(sink_.Await(1), testing::ElementsAre("interrupted: page server: silent for 1500 ms"));
}

TEST_F(TcpTransportTest, AllLanesLeadToTheAddressThatGreetsAlsoAfterwards) {
  ScriptedListener silent;  // takes connections and says nothing
  TcpTransportOptions options = Options(2);
  options.addresses = {silent.address(), listener_->address()};
  options.connect_timeout = std::chrono::milliseconds(100);
  std::thread server([&] { lanes_ = AcceptLanes(3); });
  auto transport = TcpTransport::Connect(options);
  server.join();
  ASSERT_TRUE(transport.ok()) << transport.error().message;
  ASSERT_TRUE((*transport)->Start(sink_).ok());
  lanes_[1]->Close();
  const auto lanes = AcceptLanes(3);
  EXPECT_THAT(sink_.Await(3), testing::ElementsAre(HasSubstr("interrupted: "), "urgent restored",
                                                   "bulk restored"));
  (*transport)->Stop();
}

TEST_F(TcpTransportTest, ASilentUrgentLaneIsNoticedWhileTheBulkFlows) {
  Begin(1);
  EXPECT_TRUE(transport_->Request(9, {{0}, {5}}));
  for (int i = 0; i < 40; ++i) EXPECT_TRUE(transport_->Grant(0, {0}, {{0}, 64}));
  std::atomic<bool> done{false};
  std::thread source([&] {
    for (uint64_t page = 0; !done; ++page) {
      lanes_[1]->Send(wire::ZeroRun({0}, {{page % 64}, 1}));
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
  });
  while (sink_.Await(1).back().rfind("interrupted", 0) != 0) std::this_thread::yield();
  done = true;
  source.join();
}

TEST_F(TcpTransportTest, LanesThatNeverServeAreMadeAnewEverMoreSeldom) {
  Begin(0);
  lanes_[0]->Close();
  const auto begun = std::chrono::steady_clock::now();
  for (int i = 0; i < 5; ++i) {
    auto lane = listener_->Accept();
    lane->Send(wire::EncodeWelcome({1, kLayout}));
    lane->Send(wire::EncodeError(wire::PageError::kReadFailed, "read guest memory: I/O error"));
  }
  // 50, 100, 200, 400 ms between them
  EXPECT_GT(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(700));
}

TEST_F(TcpTransportTest, ARefusalOfTheNewLanesIsTriedAgain) {
  Begin(0);
  lanes_[0]->Close();
  auto refused = listener_->Accept();
  refused->Send(wire::EncodeError(wire::PageError::kNoSuchSession, "no such session"));
  const auto lanes = AcceptLanes(1);
  EXPECT_THAT(sink_.Await(4),
              testing::ElementsAre(HasSubstr("interrupted: "), HasSubstr("no such session"),
                                   "urgent restored", "bulk restored"));
}

TEST_F(TcpTransportTest, ASourceThatHasChangedIsNeverAsked) {
  Begin(0);
  lanes_[0]->Close();
  auto other = listener_->Accept();
  other->Send(wire::EncodeWelcome({1, {{{"ram", 8 * kPageBytes}}}}));
  EXPECT_THAT(sink_.Await(2).back(), HasSubstr("differ in their layout"));
  EXPECT_FALSE(transport_->Request(9, {{0}, {5}}));
}

TEST_F(TcpTransportTest, LanesThatAreToBeMadeLaterAreMadeAsOnesThatBroke) {
  auto later = TcpTransport::ConnectLater(Options(1), kLayout);
  ASSERT_TRUE(later.ok()) << later.error().message;
  EXPECT_EQ((*later)->layout().regions, kLayout.regions);
  ASSERT_TRUE((*later)->Start(sink_).ok());
  EXPECT_FALSE((*later)->Request(9, {{0}, {5}}));
  const auto lanes = AcceptLanes(2);
  EXPECT_THAT(sink_.Await(3), testing::ElementsAre("interrupted: page server: not connected yet",
                                                   "urgent restored", "bulk restored"));
  EXPECT_TRUE((*later)->Request(9, {{0}, {5}}));
  EXPECT_EQ(lanes[0]->Read().type(), wire::PageFrame::kRequest);
  (*later)->Stop();
}

TEST_F(TcpTransportTest, StopEndsAnAttemptThatHangs) {
  Begin(0);
  lanes_[0]->Close();
  const auto silent = listener_->Accept();  // no WELCOME
  transport_->Stop();
  EXPECT_TRUE(silent->Ended());
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
