// The page server against too many connections, and against peers that send nothing, send garbage or
// have closed the connection.
#include <cstddef>
#include <filesystem>
#include <iterator>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "tests/server/page_server_fixture.h"

namespace postcopy {
namespace {

using wire::Bytes;
using wire::Lane;
using wire::PageFrame;

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

}  // namespace
}  // namespace postcopy
