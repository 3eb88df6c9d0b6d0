#include "attach/agent_connection.h"

#include <stdlib.h>
#include <sys/mman.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kSoon{1000};
const SessionId kSession{{std::byte{5}}};

class AgentConnectionTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/postcopy-agent-XXXXXX";
    directory_ = mkdtemp(name);
    auto listener = UnixListener::Listen(directory_ + "/s", 0600);
    ASSERT_TRUE(listener.ok());
    auto sender = UnixChannel::Connect(directory_ + "/s");
    ASSERT_TRUE(sender.ok());
    sender_.emplace(std::move(*sender));
    auto accepted = listener->Accept();
    ASSERT_TRUE(accepted.ok());
    receiver_.emplace(std::move(*accepted));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  void SendRaw(const wire::AgentMessage& message, std::span<const int> descriptors) {
    ASSERT_TRUE(sender_->Send(wire::Encode(message), descriptors, kSoon).ok());
  }

  std::string directory_;
  std::optional<UnixChannel> sender_;
  std::optional<AgentConnection> receiver_;
  UniqueFd file_{memfd_create("ram", MFD_CLOEXEC)};
};

TEST_F(AgentConnectionTest, EachMessageGetsItsOwnDescriptors) {
  const int fd = file_.get();
  SendRaw(wire::ReleasedMessage{kSession}, {});
  SendRaw(wire::ArmedMessage{kSession}, {&fd, 1});
  SendRaw(wire::ReleasedMessage{kSession}, {});
  for (const size_t count : {0, 1, 0}) {
    auto received = receiver_->Receive();
    ASSERT_TRUE(received.ok() && received->has_value());
    ASSERT_EQ((*received)->descriptors.size(), count);
    if (count == 1) {
      EXPECT_TRUE(*IsSameRamFile((*received)->descriptors[0].get(), fd));
    }
  }
  auto nothing = receiver_->Receive();
  EXPECT_TRUE(nothing.ok() && !nothing->has_value());
}

TEST_F(AgentConnectionTest, AMessageInPiecesIsWholeAtItsEnd) {
  const int fd = file_.get();
  const auto bytes = wire::Encode(wire::ArmedMessage{kSession});
  for (size_t i = 0; i < bytes.size(); ++i) {
    auto early = receiver_->Receive();
    ASSERT_TRUE(early.ok() && !early->has_value());
    ASSERT_TRUE(sender_->Send({&bytes[i], 1}, {&fd, i == 0 ? size_t{1} : size_t{0}}, kSoon).ok());
  }
  auto received = receiver_->Receive();
  ASSERT_TRUE(received.ok() && received->has_value());
  EXPECT_EQ((*received)->descriptors.size(), 1u);
}

TEST_F(AgentConnectionTest, AnnouncedDescriptorsThatDoNotComeAreAViolation) {
  SendRaw(wire::ArmedMessage{kSession}, {});
  const auto received = receiver_->Receive();
  ASSERT_FALSE(received.ok());
  EXPECT_EQ(received.error().code, ErrorCode::kProtocol);
  EXPECT_THAT(received.error().message, HasSubstr("1 descriptors announced, 0 came"));
}

TEST_F(AgentConnectionTest, DescriptorsThatNobodyAnnouncedAreAViolation) {
  const int fd = file_.get();
  SendRaw(wire::ReleasedMessage{kSession}, {&fd, 1});
  const auto received = receiver_->Receive();
  ASSERT_FALSE(received.ok());
  EXPECT_THAT(received.error().message, HasSubstr("nobody announced"));
}

TEST_F(AgentConnectionTest, AFrameOverTheLimitIsRefusedByItsHeader) {
  std::vector<std::byte> header(wire::kFrameHeaderBytes);
  wire::EncodeFrameHeader({1, 0, 0, wire::kMaxAgentBodyBytes + 1}, header.data());
  ASSERT_TRUE(sender_->Send(header, {}, kSoon).ok());
  const auto received = receiver_->Receive();
  ASSERT_FALSE(received.ok());
  EXPECT_THAT(received.error().message, HasSubstr("longer than any may be"));
}

TEST_F(AgentConnectionTest, AMessageThatBreaksARuleIsNotSent) {
  const auto sent = receiver_->Send(wire::ErrorMessage{""}, {}, kSoon);
  ASSERT_FALSE(sent.ok());
  EXPECT_EQ(sent.error().code, ErrorCode::kInvalidArgument);
}

TEST_F(AgentConnectionTest, WhatCameBeforeTheEndIsReceivedBeforeIt) {
  SendRaw(wire::ErrorMessage{"bye"}, {});
  sender_.reset();
  auto last = receiver_->Receive();
  ASSERT_TRUE(last.ok() && last->has_value());
  EXPECT_EQ(receiver_->Receive().error().code, ErrorCode::kUnavailable);
}

}  // namespace
}  // namespace postcopy
