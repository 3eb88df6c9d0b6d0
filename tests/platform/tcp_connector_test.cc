#include "platform/tcp_connector.h"

#include <sys/socket.h>

#include <thread>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;

std::vector<TcpEndpoint> Endpoints(const std::vector<std::string>& addresses) {
  std::vector<TcpEndpoint> endpoints;
  for (const std::string& address : addresses) endpoints.push_back((*ResolveTcp(address))[0]);
  return endpoints;
}

std::string AddressOf(const UniqueFd& listener) {
  return "127.0.0.1:" + std::to_string(*LocalPort(listener.get()));
}

// An address where nobody listens now, and a listener there later.
class Away {
 public:
  Away() {
    auto listener = ListenTcp("127.0.0.1:0");
    address_ = AddressOf(*listener);
  }
  const std::string& address() const { return address_; }
  void Return() { listener_ = std::move(*ListenTcp(address_)); }

 private:
  std::string address_;
  UniqueFd listener_;
};

// A listener whose queue is full: further attempts stay without an answer.
class Silent {
 public:
  Silent() : listener_(std::move(*ListenTcp("127.0.0.1:0"))) {
    listen(listener_.get(), 0);
    const auto endpoint = Endpoints({address()})[0];
    for (int i = 0; i < 4; ++i) queued_.push_back(std::move(*BeginConnect(endpoint)));
  }
  std::string address() const { return AddressOf(listener_); }

 private:
  UniqueFd listener_;
  std::vector<UniqueFd> queued_;
};

TEST(TcpConnectorTest, TakesTheNextEndpointWhereOneRefuses) {
  const Away away;
  const auto listener = ListenTcp("127.0.0.1:0");
  auto connector = TcpConnector::Create(Endpoints({away.address(), AddressOf(*listener)}));
  const auto connected = connector->Connect(seconds(10), 0, /*once=*/true);
  ASSERT_TRUE(connected.ok()) << connected.error().message;
  EXPECT_EQ(connected->address, AddressOf(*listener));
}

TEST(TcpConnectorTest, DoesNotWaitForAnEndpointThatStaysSilent) {
  const Silent silent;
  const auto listener = ListenTcp("127.0.0.1:0");
  auto connector = TcpConnector::Create(Endpoints({silent.address(), AddressOf(*listener)}));
  const auto connected = connector->Connect(seconds(10));
  ASSERT_TRUE(connected.ok()) << connected.error().message;
  EXPECT_EQ(connected->address, AddressOf(*listener));
}

TEST(TcpConnectorTest, BeginsWithTheEndpointThatItIsTold) {
  const auto first = ListenTcp("127.0.0.1:0");
  const auto second = ListenTcp("127.0.0.1:0");
  auto connector = TcpConnector::Create(Endpoints({AddressOf(*first), AddressOf(*second)}));
  for (int i = 0; i < 3; ++i) EXPECT_EQ(connector->Connect(seconds(10), 1)->endpoint, 1u);
  EXPECT_EQ(connector->Connect(seconds(10))->endpoint, 0u);
}

TEST(TcpConnectorTest, FindsAPeerThatComesLater) {
  Away away;
  std::thread later([&] {
    std::this_thread::sleep_for(milliseconds(250));
    away.Return();
  });
  auto connector = TcpConnector::Create(Endpoints({away.address()}));
  const auto connected = connector->Connect(seconds(10));
  EXPECT_TRUE(connected.ok());
  later.join();
}

TEST(TcpConnectorTest, OnceMeansThatARefusalIsTheAnswer) {
  const Away away;
  auto connector = TcpConnector::Create(Endpoints({away.address()}));
  const auto begun = std::chrono::steady_clock::now();
  const auto connected = connector->Connect(seconds(30), 0, /*once=*/true);
  ASSERT_FALSE(connected.ok());
  EXPECT_EQ(connected.error().message, "connect tcp://" + away.address() + ": Connection refused");
  EXPECT_LT(std::chrono::steady_clock::now() - begun, seconds(15));
}

TEST(TcpConnectorTest, TheTimeOutNamesWhereItTried) {
  const Silent silent;
  auto connector = TcpConnector::Create(Endpoints({silent.address()}));
  const auto connected = connector->Connect(milliseconds(150));
  ASSERT_FALSE(connected.ok());
  EXPECT_EQ(connected.error().code, ErrorCode::kTimeout);
  EXPECT_THAT(connected.error().message, HasSubstr(silent.address()));
}

TEST(TcpConnectorTest, StopEndsItNowAndEverAfter) {
  const Away away;
  auto connector = TcpConnector::Create(Endpoints({away.address()}));
  std::thread stopper([&] {
    std::this_thread::sleep_for(milliseconds(50));
    connector->Stop();
  });
  EXPECT_EQ(connector->Connect(seconds(30)).error().code, ErrorCode::kUnavailable);
  stopper.join();
  EXPECT_EQ(connector->Connect(seconds(30)).error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace postcopy
