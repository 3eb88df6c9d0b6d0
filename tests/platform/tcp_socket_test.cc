#include "platform/tcp_socket.h"

#include <thread>
#include <vector>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using testing::HasSubstr;

std::span<const std::byte> BytesOf(const std::string& text) { return std::as_bytes(std::span(text)); }

struct Pair {
  UniqueFd client;
  UniqueFd server;
};
Pair ConnectedPair() {
  auto listener = ListenTcp("127.0.0.1:0");
  const std::string address = "127.0.0.1:" + std::to_string(*LocalPort(listener->get()));
  auto client = ConnectTcp(address, milliseconds(5000));
  std::string peer;
  auto server = AcceptTcp(listener->get(), peer);
  EXPECT_THAT(peer, HasSubstr("127.0.0.1:"));
  return {std::move(*client), std::move(*server)};
}

TEST(TcpSocketTest, WhatIsNoAddressIsRefusedByName) {
  for (const char* text : {"", "host", ":7701", "host:", "host:99999", "fe80::1:7701", "[]:7701",
                           "[fe80::1:7701", "unix:/x"}) {
    for (const Error& error : {ResolveTcp(text).error(), ListenTcp(text).error()}) {
      EXPECT_EQ(error.code, ErrorCode::kInvalidArgument) << text;
      EXPECT_THAT(error.message, HasSubstr(text));
    }
  }
  EXPECT_EQ(ResolveTcp("0.0.0.0:1").error().code, ErrorCode::kInvalidArgument);
}

TEST(TcpSocketTest, TheAddressTowardsAHostIsTheOneThatItSees) {
  EXPECT_EQ(*LocalHostTowards("127.0.0.1:1", true), "127.0.0.1");
  EXPECT_EQ(*LocalHostTowards("localhost:1", true), "127.0.0.1");
  EXPECT_THAT(LocalHostTowards("[::1]:1", true).error().message, HasSubstr("no IPv4 address"));
  EXPECT_FALSE(LocalHostTowards("127.0.0.1", false).ok());
}

TEST(TcpSocketTest, TwoPartsArriveAsOneStream) {
  const Pair pair = ConnectedPair();
  const std::string first = "head", second(300000, 'x');
  std::thread sender([&] {
    const auto sent = SendAll(pair.client.get(), BytesOf(first), BytesOf(second));
    EXPECT_EQ(sent.outcome, SocketOutcome::kDone);
    EXPECT_EQ(sent.bytes, first.size() + second.size());
  });
  std::string got;
  std::vector<std::byte> buffer(7000);
  while (got.size() < first.size() + second.size()) {
    const auto received = Receive(pair.server.get(), buffer);
    ASSERT_EQ(received.outcome, SocketOutcome::kDone);
    got.append(reinterpret_cast<const char*>(buffer.data()), received.bytes);
  }
  sender.join();
  EXPECT_EQ(got, first + second);
}

TEST(TcpSocketTest, EndOfThePeerIsClosed) {
  Pair pair = ConnectedPair();
  pair.client = UniqueFd();
  std::byte byte;
  EXPECT_EQ(Receive(pair.server.get(), {&byte, 1}).outcome, SocketOutcome::kClosed);
}

TEST(TcpSocketTest, SendToAPeerThatIsGoneEndsWithoutASignal) {
  Pair pair = ConnectedPair();
  pair.server = UniqueFd();
  const std::string text(1 << 20, 'x');
  SocketResult sent;
  do {
    sent = SendAll(pair.client.get(), BytesOf(text));
  } while (sent.outcome == SocketOutcome::kDone);
  EXPECT_EQ(sent.outcome, SocketOutcome::kClosed);
}

TEST(TcpSocketTest, ReceiveGivesUpAfterItsTimeout) {
  const Pair pair = ConnectedPair();
  SetReceiveTimeout(pair.server.get(), milliseconds(10));
  std::byte byte;
  EXPECT_EQ(Receive(pair.server.get(), {&byte, 1}).outcome, SocketOutcome::kTimedOut);
}

TEST(TcpSocketTest, ShutdownUnblocksWhoReceivesAndWhoSends) {
  const Pair pair = ConnectedPair();
  std::thread receiver([&] {
    std::byte byte;
    EXPECT_EQ(Receive(pair.server.get(), {&byte, 1}).outcome, SocketOutcome::kClosed);
  });
  std::thread sender([&] {
    const std::string text(64 << 20, 'x');  // more than any buffer takes
    EXPECT_NE(SendAll(pair.client.get(), BytesOf(text)).outcome, SocketOutcome::kTimedOut);
  });
  Shutdown(pair.server.get());
  Shutdown(pair.client.get());
  receiver.join();
  sender.join();
}

TEST(TcpSocketTest, ShutdownOfAListenerEndsItsAccept) {
  auto listener = ListenTcp("127.0.0.1:0");
  std::thread acceptor([&] {
    std::string peer;
    const auto accepted = AcceptTcp(listener->get(), peer);
    ASSERT_FALSE(accepted.ok());
    EXPECT_EQ(accepted.error().code, ErrorCode::kUnavailable);
  });
  Shutdown(listener->get());
  acceptor.join();
}

TEST(TcpSocketTest, RefusedConnectionNamesAddressAndCause) {
  std::string address;
  {
    auto listener = ListenTcp("127.0.0.1:0");
    address = "127.0.0.1:" + std::to_string(*LocalPort(listener->get()));
  }
  const auto socket = ConnectTcp(address, milliseconds(5000));
  ASSERT_FALSE(socket.ok());
  EXPECT_EQ(socket.error().message, "connect tcp://" + address + ": Connection refused");
}

TEST(TcpSocketTest, PortThatIsTakenIsAnErrorThatNamesIt) {
  auto listener = ListenTcp("127.0.0.1:0");
  const std::string address = "127.0.0.1:" + std::to_string(*LocalPort(listener->get()));
  const auto second = ListenTcp(address);
  ASSERT_FALSE(second.ok());
  EXPECT_THAT(second.error().message, HasSubstr("listen tcp://" + address));
}

TEST(TcpSocketTest, TheRoundTripOfAConnectionIsKnownAndOfNothingElse) {
  const Pair pair = ConnectedPair();
  EXPECT_GT(ShortestRoundTrip(pair.client.get()).count(), 0);
  EXPECT_LT(ShortestRoundTrip(pair.client.get()), std::chrono::seconds(1));
  EXPECT_EQ(ShortestRoundTrip(-1).count(), 0);
}

TEST(TcpSocketTest, TrySendNeverWaits) {
  const Pair pair = ConnectedPair();
  const std::string text(1 << 20, 'x');
  for (int i = 0; i < 64; ++i) TrySend(pair.client.get(), BytesOf(text));  // nobody reads
}

}  // namespace
}  // namespace postcopy
