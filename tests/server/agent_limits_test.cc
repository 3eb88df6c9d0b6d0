#include "server/agent_limits.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

TEST(AgentLimitsTest, OneProcessLeavesRoomForOthers) {
  std::vector<AgentPeer> connected(kMaxAgentClientsPerProcess - 1, AgentPeer{7, 0});
  EXPECT_EQ(WhyNoMoreClients(connected, {7, 0}), "");
  connected.push_back({7, 0});
  EXPECT_THAT(WhyNoMoreClients(connected, {7, 0}), HasSubstr("16 are the limit of a process"));
  EXPECT_EQ(WhyNoMoreClients(connected, {8, 0}), "");
}

TEST(AgentLimitsTest, OneUserLeavesRoomForOthersAndRootMayAll) {
  std::vector<AgentPeer> connected;
  for (int pid = 1; connected.size() < kMaxAgentClientsPerUser; ++pid) connected.push_back({pid, 65534});
  EXPECT_THAT(WhyNoMoreClients(connected, {9999, 65534}), HasSubstr("512 are the limit of a user"));
  EXPECT_EQ(WhyNoMoreClients(connected, {9999, 64055}), "");
  for (AgentPeer& peer : connected) peer.uid = 0;
  EXPECT_EQ(WhyNoMoreClients(connected, {9999, 0}), "");
}

TEST(AgentLimitsTest, AllTogetherHaveALimit) {
  std::vector<AgentPeer> connected;
  for (int pid = 1; connected.size() < kMaxAgentClients; ++pid) connected.push_back({pid, 0});
  EXPECT_THAT(WhyNoMoreClients(connected, {9999, 0}), HasSubstr("1024 clients are the limit"));
}

TEST(AgentLimitsTest, AProcessHasFewVmsAndDescriptors) {
  EXPECT_EQ(WhyNoMoreVms(7, kMaxVmsPerProcess - 1, kMaxDescriptorsPerProcess), "");
  EXPECT_THAT(WhyNoMoreVms(7, kMaxVmsPerProcess, 1), HasSubstr("8 are the limit of a process"));
  EXPECT_THAT(WhyNoMoreVms(7, 0, kMaxDescriptorsPerProcess + 1),
              HasSubstr("need 133 descriptors, 132 are the limit of a process"));
}

}  // namespace
}  // namespace postcopy
