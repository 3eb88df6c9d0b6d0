// gRPC's own words do not reach users. The texts are what gRPC 1.51 says.
#include "control/rpc_status.h"

#include <gmock/gmock.h>
#include <grpcpp/support/status.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

using ::testing::HasSubstr;

std::string Unavailable(const std::string& text) {
  return CauseOfFailedCall(grpc::StatusCode::UNAVAILABLE, text);
}
std::string NotConnected(const std::string& cause) {
  return Unavailable(
      "failed to connect to all addresses; last error: UNKNOWN: ipv4:10.0.0.8:7700: " + cause);
}

TEST(RpcStatusTest, ANameThatIsUnknownIsNamed) {
  EXPECT_EQ(Unavailable("DNS resolution failed for host-b:7700: C-ares status is not ARES_SUCCESS "
                        "qtype=A name=host-b is_balancer=0: Domain name not found"),
            "unknown host name host-b");
  EXPECT_EQ(Unavailable("DNS resolution failed for x"), "unknown host name x");
}

TEST(RpcStatusTest, WhatKeepsAConnectionFromBeingMadeIsSaidInPlainWords) {
  EXPECT_EQ(NotConnected("Failed to connect to remote host: Connection refused"),
            "connection refused");
  EXPECT_EQ(NotConnected("Failed to connect to remote host: No route to host"), "no route to host");
  for (const char* text : {"tcp handshaker shutdown", "FD Shutdown", "connect timeout"}) {
    EXPECT_THAT(NotConnected(text), HasSubstr("no answer within 2 s (is uffd-server running there"));
  }
  for (const char* text : {"Trying to connect an http1.x server", "failed parsing HTTP/2"}) {
    EXPECT_EQ(NotConnected(text), "another program than uffd-server listens there");
  }
  EXPECT_THAT(NotConnected("Socket closed"), HasSubstr("expects TLS"));
  EXPECT_THAT(NotConnected("connection attempt timed out before receiving SETTINGS frame"),
              HasSubstr("says nothing"));
}

TEST(RpcStatusTest, AConnectionThatEndsDuringACallIsNotOneThatCouldNotBeMade) {
  EXPECT_EQ(Unavailable("Socket closed"), "it closed the connection");
  EXPECT_EQ(Unavailable("keepalive watchdog timeout"),
            "the connection is lost, it has fallen silent");
  EXPECT_EQ(Unavailable("recvmsg:Connection timed out"),
            "the connection is lost, it has fallen silent");
}

TEST(RpcStatusTest, WhatIsNotKnownIsPassedOn) {
  EXPECT_THAT(NotConnected("something new"), HasSubstr("cannot be reached ("));
  EXPECT_EQ(Unavailable(""), "status 14");
  EXPECT_EQ(CauseOfFailedCall(grpc::StatusCode::DEADLINE_EXCEEDED, "Deadline Exceeded"),
            "no answer in time");
}

}  // namespace
}  // namespace postcopy
