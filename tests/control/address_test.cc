#include "control/address.h"

#include <gtest/gtest.h>

namespace postcopy {
namespace {

TEST(AddressTest, PortIsAddedOnlyWhereNoneIs) {
  EXPECT_EQ(WithDefaultPort("10.77.0.12", 7700), "10.77.0.12:7700");
  EXPECT_EQ(WithDefaultPort("10.77.0.12:1", 7700), "10.77.0.12:1");
  EXPECT_EQ(WithDefaultPort("host-b", 7700), "host-b:7700");
  EXPECT_EQ(WithDefaultPort("fd00::12", 7700), "[fd00::12]:7700");
  EXPECT_EQ(WithDefaultPort("[fd00::12]", 7700), "[fd00::12]:7700");
  EXPECT_EQ(WithDefaultPort("[fd00::12]:1", 7700), "[fd00::12]:1");
  EXPECT_EQ(WithDefaultPort("unix:/run/postcopy/control.sock", 7700),
            "unix:/run/postcopy/control.sock");
}

TEST(AddressTest, LoopbackAndUnixAreLocal) {
  for (const char* address : {"127.0.0.1:7700", "127.3.2.1:7700", "localhost:7700", "[::1]:7700",
                              "::1", "127.0.0.1", "unix:/run/x", "unix-abstract:x"}) {
    EXPECT_TRUE(IsLocalOnly(address)) << address;
  }
}

TEST(AddressTest, EverythingElseIsNot) {
  for (const char* address :
       {"0.0.0.0:7700", "[::]:7700", "10.0.0.1:7700", "host-b:7700", "127.0.0.1.example.org:7700",
        "127.example.org:7700", "127.0.0:7700", "127.0.0.256:7700", "1127.0.0.1:7700", "",
        "localhost.example.org:1", "[::ffff:10.0.0.1]:7700", "0127.0.0.1:7700", "[::1]x:7700",
        "[::1]x]:7700"}) {
    EXPECT_FALSE(IsLocalOnly(address)) << address;
  }
}

TEST(AddressTest, PortIsReplaced) {
  EXPECT_EQ(WithPort("127.0.0.1:0", 4711), "127.0.0.1:4711");
  EXPECT_EQ(WithPort("[::1]:0", 4711), "[::1]:4711");
}

}  // namespace
}  // namespace postcopy
