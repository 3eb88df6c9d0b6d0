#include "platform/unix_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLong{10'000};
constexpr milliseconds kShort{30};

class UnixStreamTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto ends = MakeStreamPair();
    ASSERT_TRUE(ends.ok());
    a_ = std::move(ends->first);
    b_ = std::move(ends->second);
  }
  UniqueFd a_;
  UniqueFd b_;
  std::array<char, 64> buffer_;
};

TEST_F(UnixStreamTest, SendsMoreThanTheSocketHolds) {
  const std::string bytes(4 << 20, 'x');
  size_t received = 0;
  std::jthread reader([&] {
    for (;;) {
      std::array<char, 65536> part;
      const StreamResult got = ReceiveBytes(b_.get(), part, kLong);
      if (got.outcome != StreamOutcome::kDone) break;
      received += got.bytes;
    }
  });
  const StreamResult sent = SendBytes(a_.get(), bytes, -1, kLong);
  EXPECT_EQ(sent.outcome, StreamOutcome::kDone);
  EXPECT_EQ(sent.bytes, bytes.size());
  ShutDown(a_.get(), StreamDirection::kSend);
  reader.join();
  EXPECT_EQ(received, bytes.size());
}

TEST_F(UnixStreamTest, ReaderThatDoesNotReadIsATimeoutWithACount) {
  const StreamResult sent = SendBytes(a_.get(), std::string(64 << 20, 'x'), -1, kShort);
  EXPECT_EQ(sent.outcome, StreamOutcome::kTimedOut);
  EXPECT_GT(sent.bytes, 0u);
}

TEST_F(UnixStreamTest, SilenceIsATimeout) {
  EXPECT_EQ(ReceiveBytes(a_.get(), buffer_, kShort).outcome, StreamOutcome::kTimedOut);
}

TEST_F(UnixStreamTest, ClosedPeerIsToldAndRaisesNoSignal) {
  b_.Reset();
  EXPECT_EQ(ReceiveBytes(a_.get(), buffer_, kLong).outcome, StreamOutcome::kClosed);
  EXPECT_EQ(SendBytes(a_.get(), "x", -1, kLong).outcome, StreamOutcome::kClosed);
}

TEST_F(UnixStreamTest, ShutDownEndsAReceiveThatWaits) {
  std::jthread waiter([&] {
    EXPECT_EQ(ReceiveBytes(a_.get(), buffer_, milliseconds(-1)).outcome, StreamOutcome::kClosed);
  });
  ShutDown(a_.get(), StreamDirection::kBoth);
}

TEST_F(UnixStreamTest, DescriptorGoesAlongAndStaysTheCallers) {
  UniqueFd read_end, write_end;
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  read_end.Reset(ends[0]);
  write_end.Reset(ends[1]);
  ASSERT_EQ(SendBytes(a_.get(), "fd", write_end.get(), kLong).outcome, StreamOutcome::kDone);
  EXPECT_NE(::fcntl(write_end.get(), F_GETFD), -1);

  iovec part = {buffer_.data(), buffer_.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  msghdr message = {};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ASSERT_EQ(::recvmsg(b_.get(), &message, 0), 2);
  ASSERT_NE(CMSG_FIRSTHDR(&message), nullptr);
  int received = -1;
  std::memcpy(&received, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(received));
  const UniqueFd passed(received);
  EXPECT_EQ(::write(passed.get(), "z", 1), 1);
  EXPECT_EQ(::read(read_end.get(), buffer_.data(), 1), 1);
}

TEST_F(UnixStreamTest, PeerOfAPairIsThisProcess) {
  EXPECT_EQ(*PeerProcess(a_.get()), ::getpid());
}

TEST(ConnectUnixStreamTest, NamesWhatIsWrong) {
  EXPECT_EQ(ConnectUnixStream("/nonexistent/x", kShort).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ConnectUnixStream("", kShort).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(ConnectUnixStream(std::string(200, 'x'), kShort).error().code,
            ErrorCode::kInvalidArgument);
}

TEST(ConnectUnixStreamTest, FullBacklogIsATimeout) {
  char folder[] = "/tmp/postcopy-stream-XXXXXX";
  ASSERT_NE(::mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/s";
  const UniqueFd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(ConnectUnixStream(path, kShort).error().code, ErrorCode::kUnavailable);
  ASSERT_EQ(::listen(listener.get(), 0), 0);
  const auto first = ConnectUnixStream(path, kLong);
  EXPECT_TRUE(first.ok());
  EXPECT_EQ(ConnectUnixStream(path, kShort).error().code, ErrorCode::kTimeout);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace postcopy
