// TcpTransport whose lanes break or fall silent: how they are made again.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "tests/transport/tcp_transport_fixture.h"

namespace postcopy {
namespace {

using testing::HasSubstr;
using wire::Bytes;

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

}  // namespace
}  // namespace postcopy
