// The daemon's socket against clients that break the rules.
#include "server/agent_server.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;

constexpr std::chrono::milliseconds kSoon{5000};
const SessionId kSession{{std::byte{1}}};

class AgentServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/postcopy-server-XXXXXX";
    directory_ = mkdtemp(name);
    Start();
    ASSERT_EQ(ftruncate(file_.get(), 1 << 20), 0);
  }
  void TearDown() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }
  void Start() {
    auto server = AgentServer::Start({directory_ + "/run", 0600}, registry_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  UnixChannel Connect() {
    auto channel = UnixChannel::Connect(server_->socket_path());
    EXPECT_TRUE(channel.ok());
    return std::move(*channel);
  }
  wire::RegisterMessage Register() const {
    wire::RegisterMessage message;
    message.snapshot = 1;
    message.vm_name = "vm";
    message.blocks = {
        {0x1000000, 1 << 20, 0, wire::BlockKind::kSharedFile, false, "ram", "/dev/shm/r"}};
    return message;
  }
  // The next message of the server; ErrorMessage "(closed)" if it has closed.
  static wire::AgentMessage Await(AgentConnection& connection) {
    for (int i = 0; i < 4000; ++i) {
      auto received = connection.Receive();
      if (!received.ok()) return wire::ErrorMessage{"(closed)"};
      if (received->has_value()) return std::move((*received)->message);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return wire::ErrorMessage{"(silence)"};
  }
  std::string AwaitError(UnixChannel channel) {
    AgentConnection connection(std::move(channel));
    const auto message = Await(connection);
    if (const auto* refused = std::get_if<wire::RegisteredMessage>(&message)) {
      return "refused: " + refused->refusal;
    }
    const auto* error = std::get_if<wire::ErrorMessage>(&message);
    EXPECT_EQ(std::get<wire::ErrorMessage>(Await(connection)).text, "(closed)");
    return error == nullptr ? "something else" : error->text;
  }
  std::string AnswerTo(const wire::AgentMessage& message, const std::vector<int>& descriptors) {
    UnixChannel channel = Connect();
    EXPECT_TRUE(channel.Send(wire::Encode(message), descriptors, kSoon).ok());
    return AwaitError(std::move(channel));
  }

  std::string directory_;
  VmRegistry registry_;
  std::unique_ptr<AgentServer> server_;
  UniqueFd file_{memfd_create("ram", MFD_CLOEXEC)};
};

TEST_F(AgentServerTest, RegistersAndAnswers) {
  AgentConnection connection(Connect());
  const int fd = file_.get();
  ASSERT_TRUE(connection.Send(Register(), {&fd, 1}, kSoon).ok());
  const auto message = Await(connection);
  const auto* answer = std::get_if<wire::RegisteredMessage>(&message);
  ASSERT_NE(answer, nullptr);
  EXPECT_TRUE(answer->accepted);
  EXPECT_EQ(answer->snapshot, 1u);
  EXPECT_EQ(registry_.Find("vm")->pid(), getpid());
}

TEST_F(AgentServerTest, TheFirstMessageMustBeRegister) {
  EXPECT_THAT(AnswerTo(wire::ReleasedMessage{kSession}, {}), HasSubstr("first message"));
}

TEST_F(AgentServerTest, AnAnswerThatNobodyAskedForIsAViolation) {
  UnixChannel channel = Connect();
  const int fd = file_.get();
  ASSERT_TRUE(channel.Send(wire::Encode(Register()), {&fd, 1}, kSoon).ok());
  ASSERT_TRUE(channel.Send(wire::Encode(wire::ReleasedMessage{kSession}), {}, kSoon).ok());
  AgentConnection connection(std::move(channel));
  EXPECT_TRUE(std::holds_alternative<wire::RegisteredMessage>(Await(connection)));
  EXPECT_THAT(std::get<wire::ErrorMessage>(Await(connection)).text, HasSubstr("nobody asked"));
}

TEST_F(AgentServerTest, ARamFileMustBeAFileOfItsSize) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  EXPECT_THAT(AnswerTo(Register(), {ends[0]}), HasSubstr("is not a file"));
  close(ends[0]);
  close(ends[1]);
  ASSERT_EQ(ftruncate(file_.get(), 4096), 0);
  EXPECT_THAT(AnswerTo(Register(), {file_.get()}), HasSubstr("has 4096 bytes, its block needs"));
}

TEST_F(AgentServerTest, AUserfaultfdMustBeOne) {
  auto message = Register();
  message.armed_session = kSession;
  message.blocks[0].armed = true;
  EXPECT_THAT(AnswerTo(message, {file_.get(), file_.get(), file_.get()}),
              HasSubstr("not a userfaultfd"));
}

TEST_F(AgentServerTest, AnotherVersionIsRefusedByName) {
  auto bytes = wire::Encode(Register());
  bytes[wire::kFrameHeaderBytes] = std::byte{9};
  UnixChannel channel = Connect();
  const int fd = file_.get();
  ASSERT_TRUE(channel.Send(bytes, {&fd, 1}, kSoon).ok());
  EXPECT_THAT(AwaitError(std::move(channel)),
              HasSubstr("refused: agent protocol version 9 is not spoken here"));
}

TEST_F(AgentServerTest, GarbageClosesThatConnectionOnly) {
  AgentConnection good(Connect());
  const int fd = file_.get();
  ASSERT_TRUE(good.Send(Register(), {&fd, 1}, kSoon).ok());
  EXPECT_TRUE(std::holds_alternative<wire::RegisteredMessage>(Await(good)));
  UnixChannel bad = Connect();
  const std::vector<std::byte> garbage(64, std::byte{0xff});
  ASSERT_TRUE(bad.Send(garbage, {}, kSoon).ok());
  EXPECT_THAT(AwaitError(std::move(bad)), HasSubstr("longer than any may be"));
  EXPECT_TRUE(registry_.Find("vm")->connected);
}

TEST_F(AgentServerTest, ASecondDaemonIsRefusedAndAStaleSocketRemoved) {
  VmRegistry other;
  auto second = AgentServer::Start({directory_ + "/run", 0600}, other);
  EXPECT_TRUE(absl::IsAlreadyExists(second.status())) << second.status();
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("another uffd-server is alive"));
  const std::string path = server_->socket_path();
  server_.reset();
  EXPECT_FALSE(std::filesystem::exists(path));
  { ASSERT_TRUE(UnixListener::Listen(path, 0600).ok()); }  // left behind, as after a crash
  ASSERT_TRUE(std::filesystem::exists(path));
  Start();
}

TEST_F(AgentServerTest, ASocketThatAnotherHasPutInItsPlaceStays) {
  const std::string path = server_->socket_path();
  std::filesystem::remove(path);
  const auto other = UnixListener::Listen(path, 0600);
  ASSERT_TRUE(other.ok());
  server_.reset();
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(AgentServerTest, OneProcessHoldsFewConnectionsAndIsToldTheLimit) {
  std::vector<UnixChannel> clients;
  for (size_t i = 0; i < kMaxAgentClientsPerProcess; ++i) clients.push_back(Connect());
  AgentConnection one_too_many(Connect());
  EXPECT_THAT(std::get<wire::ErrorMessage>(Await(one_too_many)).text,
              HasSubstr("16 are the limit of a process"));
  EXPECT_EQ(std::get<wire::ErrorMessage>(Await(one_too_many)).text, "(closed)");
}

TEST_F(AgentServerTest, AVmHasOneConnectionTheLastThatRegisteredIt) {
  const int fd = file_.get();
  AgentConnection first(Connect());
  ASSERT_TRUE(first.Send(Register(), {&fd, 1}, kSoon).ok());
  EXPECT_TRUE(std::holds_alternative<wire::RegisteredMessage>(Await(first)));
  AgentConnection second(Connect());
  ASSERT_TRUE(second.Send(Register(), {&fd, 1}, kSoon).ok());
  EXPECT_TRUE(std::holds_alternative<wire::RegisteredMessage>(Await(second)));
  EXPECT_THAT(std::get<wire::ErrorMessage>(Await(first)).text, HasSubstr("another connection"));
  EXPECT_TRUE(registry_.Find("vm")->connected);
}

TEST_F(AgentServerTest, RegisteringUnderOneNameAfterTheOtherKeepsOnlyTheLast) {
  const int fd = file_.get();
  for (int i = 0; i < 20; ++i) {
    AgentConnection connection(Connect());
    auto message = Register();
    message.vm_name = "vm" + std::to_string(i);
    ASSERT_TRUE(connection.Send(message, {&fd, 1}, kSoon).ok());
    EXPECT_TRUE(std::holds_alternative<wire::RegisteredMessage>(Await(connection))) << i;
  }
  // One whose end the server has yet to read may be there still.
  EXPECT_LE(registry_.List().size(), 2u);
}

}  // namespace
}  // namespace postcopy
