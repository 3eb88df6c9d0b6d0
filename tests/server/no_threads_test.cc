// The page server where the system makes no thread: a connection less, never the end of the daemon.
#include "gmock/gmock.h"
#include "server/page_server.h"
#include "tests/no_threads.h"
#include "tests/server/memory_source.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {
namespace {

using wire::Lane;
using wire::PageFrame;

class NoThreadsTest : public testing::Test {
 protected:
  NoThreadsTest() {
    server_->Add(session_, std::make_shared<MemorySource>(MemoryLayout{{{"ram", 8 * kPageBytes}}}));
    server_->Freeze(session_);
  }
  ~NoThreadsTest() override { threads_left = -1; }

  std::unique_ptr<ScriptedLane> Connect() {
    auto lane = std::make_unique<ScriptedLane>(
        std::move(*ConnectTcp(server_->addresses()[0], std::chrono::seconds(5))));
    lane->Send(wire::EncodeHello({1, Lane::kUrgent, session_}));
    return lane;
  }

  const SessionId session_{{std::byte{7}}};
  std::unique_ptr<PageServer> server_ = std::move(PageServer::Listen({"127.0.0.1:0"})).value();
};

TEST_F(NoThreadsTest, AConnectionIsClosedAndTheNextOneServed) {
  threads_left = 0;
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(Connect()->Read().here);
  threads_left = -1;
  EXPECT_EQ(Connect()->Read().type(), PageFrame::kWelcome);
}

TEST_F(NoThreadsTest, TheMapIsRefusedForNowAndTheLaneWithIt) {
  for (const int left : {0, 1}) {
    auto lane = Connect();
    EXPECT_EQ(lane->Read().type(), PageFrame::kWelcome);
    threads_left = left;  // the answer's thread, and that which finds out
    lane->Send(wire::EncodeMapRequest());
    const auto error = wire::DecodeError(lane->Read().body);
    ASSERT_TRUE(error.ok());
    EXPECT_EQ(error->code, left == 0 ? wire::PageError::kNotNow : wire::PageError::kReadFailed);
    EXPECT_THAT(error->text, testing::HasSubstr("start thread ps-"));
    threads_left = -1;
  }
  auto lane = Connect();
  EXPECT_EQ(lane->Read().type(), PageFrame::kWelcome);
  lane->Send(wire::EncodeMapRequest());
  EXPECT_EQ(lane->Read().type(), PageFrame::kMap);
}

TEST_F(NoThreadsTest, AServerWithoutAThreadSaysSo) {
  threads_left = 0;
  const auto server = PageServer::Listen({"127.0.0.1:0"});
  ASSERT_FALSE(server.ok());
  EXPECT_THAT(std::string(server.status().message()), testing::HasSubstr("start thread ps-accept"));
}

}  // namespace
}  // namespace postcopy
