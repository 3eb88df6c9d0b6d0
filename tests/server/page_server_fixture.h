// A page server with one session of two regions, frozen, and lanes whose other end a test plays.
#pragma once

#include <chrono>
#include <memory>
#include <utility>

#include "gmock/gmock.h"
#include "server/page_server.h"
#include "tests/server/memory_source.h"
#include "tests/transport/scripted_peer.h"

namespace postcopy {

class PageServerTest : public testing::Test {
 protected:
  static constexpr uint64_t kPages = 1000;

  PageServerTest() {
    server_->Add(session_, source_);
    server_->Freeze(session_);
  }

  std::unique_ptr<ScriptedLane> Connect() {
    return std::make_unique<ScriptedLane>(
        std::move(*ConnectTcp(server_->addresses()[0], std::chrono::seconds(5))));
  }
  // A lane whose greeting has been answered.
  std::unique_ptr<ScriptedLane> Greet(wire::Lane lane) {
    auto connection = Connect();
    connection->Send(wire::EncodeHello({1, lane, session_}));
    const auto welcome = connection->Read();
    EXPECT_EQ(welcome.type(), wire::PageFrame::kWelcome);
    return connection;
  }
  static int Code(wire::PageError code) { return static_cast<int>(code); }

  const SessionId session_{{std::byte{7}}};
  std::shared_ptr<MemorySource> source_ = std::make_shared<MemorySource>(
      MemoryLayout{{{"ram", kPages * kPageBytes}, {"vga", 16 * kPageBytes}}});
  std::unique_ptr<PageServer> server_ = std::move(PageServer::Listen({"127.0.0.1:0"})).value();
};

}  // namespace postcopy
