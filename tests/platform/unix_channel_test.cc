#include "platform/unix_channel.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <thread>

#include "gmock/gmock.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kSoon{1000};

std::span<const std::byte> Bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

class UnixChannelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/postcopy-channel-XXXXXX";
    directory_ = mkdtemp(name);
    path_ = directory_ + "/s";
    auto listener = UnixListener::Listen(path_, 0600);
    ASSERT_TRUE(listener.ok()) << listener.error().message;
    listener_.emplace(std::move(*listener));
    auto client = UnixChannel::Connect(path_);
    ASSERT_TRUE(client.ok()) << client.error().message;
    client_.emplace(std::move(*client));
    auto server = listener_->Accept();
    ASSERT_TRUE(server.ok()) << server.error().message;
    server_.emplace(std::move(*server));
  }
  void TearDown() override { std::filesystem::remove_all(directory_); }

  std::string directory_, path_;
  std::optional<UnixListener> listener_;
  std::optional<UnixChannel> client_, server_;
  std::array<std::byte, 256> buffer_{};
  std::vector<UniqueFd> received_;
};

TEST_F(UnixChannelTest, ThePeerIsHeldAsTheProcessThatConnected) {
  const pid_t child = fork();
  if (child == 0) {
    auto channel = UnixChannel::Connect(path_);
    for (;;) pause();
  }
  auto accepted = listener_->Accept();
  while (!accepted.ok()) accepted = listener_->Accept();
  EXPECT_EQ(*accepted->QueryPeerPid(), child);
  EXPECT_EQ(*accepted->QueryPeerUser(), getuid());
  const auto held = accepted->HoldPeer();
  ASSERT_TRUE(held.ok()) << held.error().message;
  const auto by_number = accepted->HoldPeerByNumber();
  ASSERT_TRUE(by_number.ok()) << by_number.error().message;
  EXPECT_FALSE(held->HasEnded());
  kill(child, SIGKILL);
  EXPECT_TRUE(held->WaitEnded(std::chrono::seconds(10)));
  EXPECT_TRUE(by_number->HasEnded());
  waitpid(child, nullptr, 0);
  const auto late = accepted->HoldPeer();  // newer kernels still have what is left of it
  EXPECT_TRUE(late.ok() ? late->HasEnded() : late.error().code == ErrorCode::kUnavailable);
  EXPECT_EQ(accepted->HoldPeerByNumber().error().code, ErrorCode::kUnavailable);
}

TEST_F(UnixChannelTest, APeerThatHasClosedIsNotHeldByItsNumber) {
  client_.reset();  // this process lives, and its number could have been another's before
  EXPECT_EQ(server_->HoldPeerByNumber().error().code, ErrorCode::kUnavailable);
}

TEST_F(UnixChannelTest, DescriptorsArriveWithTheirBytesAndCloseOnExec) {
  const UniqueFd first(memfd_create("a", MFD_CLOEXEC)), second(memfd_create("b", MFD_CLOEXEC));
  const int fds[] = {first.get(), second.get()};
  ASSERT_TRUE(client_->Send(Bytes("plain"), {}, kSoon).ok());
  ASSERT_TRUE(client_->Send(Bytes("with two"), fds, kSoon).ok());
  size_t bytes = 0;
  while (bytes < 13) {
    auto got = server_->Receive(std::span(buffer_).subspan(bytes), received_);
    ASSERT_TRUE(got.ok());
    bytes += *got;
  }
  EXPECT_EQ(std::string(reinterpret_cast<char*>(buffer_.data()), bytes), "plainwith two");
  ASSERT_EQ(received_.size(), 2u);
  EXPECT_TRUE(*IsSameRamFile(received_[0].get(), first.get()));
  EXPECT_TRUE(*IsSameRamFile(received_[1].get(), second.get()));
  EXPECT_NE(fcntl(received_[0].get(), F_GETFD) & FD_CLOEXEC, 0);
}

TEST_F(UnixChannelTest, NothingThereIsNotAnError) {
  EXPECT_EQ(*server_->Receive(buffer_, received_), 0u);
  EXPECT_EQ(listener_->Accept().error().code, ErrorCode::kTimeout);
}

TEST_F(UnixChannelTest, WhatWasSentBeforeTheEndIsReadBeforeIt) {
  ASSERT_TRUE(client_->Send(Bytes("last"), {}, kSoon).ok());
  client_.reset();
  EXPECT_EQ(*server_->Receive(buffer_, received_), 4u);
  EXPECT_EQ(server_->Receive(buffer_, received_).error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(server_->Send(Bytes("x"), {}, kSoon).error().code, ErrorCode::kUnavailable);
}

TEST_F(UnixChannelTest, ThePeersProcessIsKnown) {
  EXPECT_EQ(*server_->QueryPeerPid(), getpid());
  EXPECT_EQ(*client_->QueryPeerPid(), getpid());
}

TEST_F(UnixChannelTest, SendingGivesUpWhenThePeerDoesNotRead) {
  const std::string much(64 << 20, 'x');
  const auto sent = client_->Send(Bytes(much), {}, std::chrono::milliseconds(20));
  ASSERT_FALSE(sent.ok());
  EXPECT_EQ(sent.error().code, ErrorCode::kTimeout);
}

TEST_F(UnixChannelTest, ALargeMessageWaitsForItsReader) {
  const std::string much(4 << 20, 'x');
  std::thread reader([&] {
    std::vector<std::byte> chunk(64 << 10);
    for (size_t bytes = 0; bytes < much.size();) {
      auto got = server_->Receive(chunk, received_);
      if (!got.ok()) return;
      bytes += *got;
    }
  });
  EXPECT_TRUE(client_->Send(Bytes(much), {}, std::chrono::seconds(20)).ok());
  reader.join();
}

TEST_F(UnixChannelTest, TheSocketHasItsPermissions) {
  struct stat status {};
  ASSERT_EQ(stat(path_.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0600u);
}

TEST_F(UnixChannelTest, FailuresToConnectAreToldApart) {
  EXPECT_EQ(UnixChannel::Connect(directory_ + "/none").error().code, ErrorCode::kNotFound);
  EXPECT_EQ(UnixChannel::Connect(std::string(200, 'x')).error().code, ErrorCode::kInvalidArgument);
  listener_.reset();
  const auto stale = UnixChannel::Connect(path_);
  EXPECT_EQ(stale.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(stale.error().message, "connect unix:" + path_ + ": Connection refused");
}

}  // namespace
}  // namespace postcopy
