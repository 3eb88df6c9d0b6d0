#include "core/address.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

using ::testing::HasSubstr;

constexpr AddressForm kReach{.default_port = kControlPort};
constexpr AddressForm kListen{
    .default_port = kControlPort, .may_be_unix = true, .may_listen = true};

std::string Parsed(std::string_view text, const AddressForm& form = kReach) {
  const auto address = Address::Parse(text, form);
  return address.ok() ? address->ToString() : "error: " + address.error().message;
}

TEST(AddressTest, ThePortIsAddedWhereNoneIsNamed) {
  EXPECT_EQ(Parsed("10.77.0.12"), "10.77.0.12:7700");
  EXPECT_EQ(Parsed("10.77.0.12:1"), "10.77.0.12:1");
  EXPECT_EQ(Parsed("host-b"), "host-b:7700");
  EXPECT_EQ(Parsed("host_b.example.org:65535"), "host_b.example.org:65535");
  EXPECT_EQ(Parsed("fd00::12"), "[fd00::12]:7700");
  EXPECT_EQ(Parsed("[fd00::12]"), "[fd00::12]:7700");
  EXPECT_EQ(Parsed("[fd00::12]:1"), "[fd00::12]:1");
  EXPECT_EQ(Parsed("fe80::1%eth0"), "[fe80::1%eth0]:7700");
  EXPECT_EQ(Parsed("[fe80::1%br-0.1]:7"), "[fe80::1%br-0.1]:7");
  EXPECT_EQ(Parsed("::ffff:10.0.0.1"), "[::ffff:10.0.0.1]:7700");
  EXPECT_EQ(Parsed("1:2:3:4:5:6:7:8"), "[1:2:3:4:5:6:7:8]:7700");
}

TEST(AddressTest, WhatIsParsedIsParsedAgainAsItIs) {
  for (const char* text : {"10.0.0.7", "[fe80::1%eth0]:1", "unix:/run/x", "unix-abstract:x", "[::]",
                           "0.0.0.0:0", "b:2"}) {
    const std::string once = Parsed(text, kListen);
    EXPECT_EQ(Parsed(once, kListen), once);
    EXPECT_THAT(once, Not(HasSubstr("error")));
  }
}

TEST(AddressTest, PortsAreNumbersFromOneTo65535) {
  for (const char* text : {"host:99999", "host:65536", "host:abc", "host:", "host:0", "host:-1",
                           "host:7700x", "host: 1", "host:+1", "[::1]:0", "[::1]:", "host:0x10"}) {
    EXPECT_THAT(Parsed(text), HasSubstr("the port is not a number from 1 to 65535")) << text;
    EXPECT_THAT(Parsed(text), HasSubstr(text));
  }
  EXPECT_EQ(Parsed("127.0.0.1:0", kListen), "127.0.0.1:0");
  EXPECT_THAT(Parsed("127.0.0.1", AddressForm{}), HasSubstr("it names no port"));
  EXPECT_THAT(Parsed("[::1]", AddressForm{}), HasSubstr("it names no port"));
}

TEST(AddressTest, HostsAreAddressesOrNames) {
  EXPECT_EQ(Parsed(""), "error: an empty text: it names no host");
  EXPECT_EQ(Parsed(":7700"), "error: :7700: it names no host");
  for (const char* text : {"10.0.0.256", "10.0.0", "0127.0.0.1", "1", "10.0.0.7.", "1.2.3.4.5"}) {
    EXPECT_THAT(Parsed(text), HasSubstr("no IPv4 address")) << text;
  }
  for (const char* text : {"ho st", "host/b:1", "-to", ".b", "b\n", "\x1b[31m:1", "höst"}) {
    EXPECT_THAT(Parsed(text), HasSubstr("neither an IP address nor a name")) << text;
  }
  for (const char* text : {"[::1", "[]:1", "[10.0.0.7]:1", "[::1]x", "[::1]x:1", "::1::", "1:2:3",
                           "12345::", "fe80::1%", "fe80::1%a/b", "1:2:3:4:5:6:7:8:9", ":::", "a:b:c",
                           "1::2:", "[[::1]]:1"}) {
    EXPECT_THAT(Parsed(text), HasSubstr("error: ")) << text;
  }
  EXPECT_THAT(Parsed(std::string(254, 'a')), HasSubstr("longer than 253 bytes"));
  EXPECT_LT(Parsed(std::string(100'000, 'a')).size(), 200u);
  for (const char letter : Parsed("a\n\x1b[31m:1")) EXPECT_GE(letter, ' ');
}

TEST(AddressTest, OnlyAListenerMayBeEveryAddressOrASocketOfThisHost) {
  for (const char* text : {"0.0.0.0", "[::]:7700", "0::0"}) {
    EXPECT_THAT(Parsed(text), HasSubstr("nothing can connect to it"));
    EXPECT_TRUE(Address::Parse(text, kListen)->IsWildcard());
  }
  EXPECT_THAT(Parsed("unix:/run/x"), HasSubstr("can't be reached from another host"));
  EXPECT_THAT(Parsed("unix:", kListen), HasSubstr("it names no path"));
  EXPECT_THAT(Parsed("unix", kListen), HasSubstr("it names no path"));  // unix:7700 would be a path
  EXPECT_FALSE(Address::Parse("10.0.0.7", kListen)->IsWildcard());
}

TEST(AddressTest, LoopbackAndUnixAreLocal) {
  for (const char* text : {"127.0.0.1:7700", "127.3.2.1", "localhost:1", "[::1]:7700", "::1",
                           "unix:/run/x", "unix-abstract:x"}) {
    EXPECT_TRUE(Address::Parse(text, kListen)->IsLocalOnly()) << text;
  }
  for (const char* text : {"0.0.0.0", "[::]", "10.0.0.1", "host-b", "127.0.0.1.example.org",
                           "127.example.org", "localhost.example.org:1", "[::ffff:10.0.0.1]:7700"}) {
    EXPECT_FALSE(Address::Parse(text, kListen)->IsLocalOnly()) << text;
  }
}

TEST(AddressTest, HostAndPortAreReplaced) {
  const Address any = *Address::Parse("0.0.0.0:7", kListen);
  EXPECT_EQ(any.WithPort(4711).ToString(), "0.0.0.0:4711");
  EXPECT_EQ(any.WithHost("10.0.0.7").ToString(), "10.0.0.7:7");
  EXPECT_EQ(any.WithHost("fe80::1%eth0").ToString(), "[fe80::1%eth0]:7");
}

}  // namespace
}  // namespace postcopy
