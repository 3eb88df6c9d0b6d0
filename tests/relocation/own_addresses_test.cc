#include "relocation/own_addresses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(OwnAddressesTest, NoNameIsLookedUpWhereNothingDependsOnIt) {
  const auto told = AddressesFor({{"127.0.0.1:7700", "10.0.0.7:7700"}, {"10.0.0.7:7701", "[fd00::7]:7701"}},
                                 "no-such-host.invalid:7700");
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->control, "10.0.0.7:7700");
  EXPECT_THAT(told->data, ElementsAre("10.0.0.7:7701", "[fd00::7]:7701"));
}

TEST(OwnAddressesTest, AWildcardIsTheAddressTowardsThePeer) {
  const auto told = AddressesFor({{"0.0.0.0:7700"}, {"0.0.0.0:4711"}}, "127.0.0.2:7700");
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->control, "127.0.0.1:7700");
  EXPECT_THAT(told->data, ElementsAre("127.0.0.1:4711"));
}

TEST(OwnAddressesTest, LoopbackIsForPeersOnThisHost) {
  const OwnAddresses own{{"unix:/run/x", "127.0.0.1:7700"}, {"127.0.0.1:7701"}};
  const auto told = AddressesFor(own, "127.0.0.1:7800");
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->control, "127.0.0.1:7700");
}

TEST(OwnAddressesTest, WhereNothingCanBeReachedItIsSaidWhatToSet) {
  const auto told = AddressesFor({{"unix:/run/x"}, {"127.0.0.1:7701"}}, "127.0.0.1:7800");
  EXPECT_TRUE(absl::IsFailedPrecondition(told.status()));
  EXPECT_THAT(std::string(told.status().message()), HasSubstr("unix:/run/x only, which 127.0.0.1:7800 "
                                                              "cannot reach: set listen"));
}

TEST(OwnAddressesTest, WhatTheOperatorSaidIsToldAsItIs) {
  const auto told =
      AddressesFor({{"127.0.0.1:1"}, {"127.0.0.1:2"}, true, true}, "no-such-host.invalid:7700");
  ASSERT_TRUE(told.ok()) << told.status();
  EXPECT_EQ(told->control, "127.0.0.1:1");
  EXPECT_THAT(told->data, ElementsAre("127.0.0.1:2"));
}

}  // namespace
}  // namespace postcopy
