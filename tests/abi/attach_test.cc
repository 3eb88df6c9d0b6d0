// The C ABI and its C++ wrapper, against the agent protocol spoken by hand: no daemon is needed.
#include <postcopy/postcopy.h>
#include <postcopy/postcopy.hpp>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>

#include "attach/agent_connection.h"
#include "gmock/gmock.h"
#include "platform/unix_channel.h"

namespace {

using ::testing::Each;
using ::testing::HasSubstr;
using postcopy::AgentConnection;
namespace wire = postcopy::wire;

constexpr size_t kBytes = 1 << 20;

// Keeps asking until there is one, for at most 20 seconds.
template <typename Ask>
auto Await(Ask ask) -> decltype(ask()) {
  for (int i = 0; i < 4000; ++i) {
    if (auto answer = ask()) return answer;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return {};
}

class AbiAttachTest : public ::testing::Test {
 protected:
  AbiAttachTest() {
    char name[] = "/tmp/postcopy-abi-XXXXXX";
    directory_ = mkdtemp(name);
    socket_ = directory_ + "/agent.sock";
    file_ = memfd_create("ram", MFD_CLOEXEC);
    EXPECT_EQ(ftruncate(file_, kBytes), 0);
    memory_ = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
  }
  ~AbiAttachTest() override {
    munmap(memory_, kBytes);
    close(file_);
    std::filesystem::remove_all(directory_);
  }
  postcopy_attach_options Options() const {
    postcopy_attach_options options{};
    options.size = sizeof options;
    options.vm_name = "web";
    options.agent_path = socket_.c_str();
    options.log = [](void*, const char*) {};
    return options;
  }
  static wire::RegisterMessage AwaitRegister(AgentConnection& daemon) {
    auto message = Await([&]() -> std::optional<wire::RegisterMessage> {
      auto received = daemon.Receive();
      EXPECT_TRUE(received.ok()) << received.error().message;
      if (!received.ok() || !received->has_value()) return std::nullopt;
      return std::get<wire::RegisterMessage>((*received)->message);
    });
    EXPECT_TRUE(message.has_value());
    return message.value_or(wire::RegisterMessage{});
  }
  AgentConnection AwaitConnection(postcopy::UnixListener& listener) {
    auto channel = Await([&]() -> std::optional<postcopy::UnixChannel> {
      auto accepted = listener.Accept();
      if (!accepted.ok()) return std::nullopt;
      return std::move(*accepted);
    });
    return AgentConnection(std::move(*channel));
  }

  std::string directory_, socket_;
  int file_ = -1;
  void* memory_ = nullptr;
};

TEST_F(AbiAttachTest, ABadOptionIsRefusedAndStoresNothing) {
  postcopy_attachment* attachment = nullptr;
  EXPECT_EQ(postcopy_attach(nullptr, &attachment), -EINVAL);
  auto options = Options();
  options.size = 3;
  EXPECT_EQ(postcopy_attach(&options, &attachment), -EINVAL);
  options = Options();
  options.vm_name = nullptr;
  EXPECT_EQ(postcopy_attach(&options, &attachment), -EINVAL);
  options = Options();
  options.vm_name = "a/b";
  EXPECT_EQ(postcopy_attach(&options, &attachment), -EINVAL);
  options = Options();
  options.qmp_path = "relative";
  EXPECT_EQ(postcopy_attach(&options, &attachment), -EINVAL);
  EXPECT_EQ(attachment, nullptr);
  postcopy_detach(nullptr);
}

// A caller that was compiled before fields were added, and one for which they were added later.
TEST_F(AbiAttachTest, CallersOfOtherReleasesAreUnderstood) {
  constexpr size_t kFirstBytes = 48;
  auto listener = postcopy::UnixListener::Listen(socket_, 0600);
  ASSERT_TRUE(listener.ok());
  const auto options = Options();
  struct {
    postcopy_attach_options options;
    uint64_t of_a_later_release;
  } caller;
  for (const size_t size : {kFirstBytes, sizeof caller}) {
    std::memset(&caller, 0x5a, sizeof caller);  // behind `size` is what the caller has there
    std::memcpy(&caller, &options, std::min(size, sizeof options));
    caller.options.size = size;
    postcopy_attachment* attachment = nullptr;
    ASSERT_EQ(postcopy_attach(&caller.options, &attachment), 0) << size;
    ASSERT_EQ(postcopy_add_shared_block(attachment, "ram", memory_, kBytes, file_, 0), 0);
    auto daemon = AwaitConnection(*listener);
    const auto message = AwaitRegister(daemon);
    EXPECT_EQ(message.vm_name, "web") << size;
    EXPECT_EQ(message.qmp_path, "") << size;
    postcopy_detach(attachment);
  }
  caller.options.size = kFirstBytes - 1;
  postcopy_attachment* attachment = nullptr;
  EXPECT_EQ(postcopy_attach(&caller.options, &attachment), -EINVAL);
  EXPECT_EQ(attachment, nullptr);
  postcopy_detach(attachment);
}

TEST_F(AbiAttachTest, ABadBlockIsRefused) {
  const auto options = Options();
  postcopy_attachment* attachment = nullptr;
  ASSERT_EQ(postcopy_attach(&options, &attachment), 0);
  char* at = static_cast<char*>(memory_);
  EXPECT_EQ(postcopy_add_shared_block(attachment, "ram", at + 1, kBytes, file_, 0), -EINVAL);
  EXPECT_EQ(postcopy_add_shared_block(attachment, "ram", at, 0, file_, 0), -EINVAL);
  EXPECT_EQ(postcopy_add_shared_block(attachment, "ram", at, kBytes, -1, 0), -EINVAL);
  const int disk = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  EXPECT_EQ(postcopy_add_shared_block(attachment, "ram", at, kBytes, disk, 0), -EOPNOTSUPP);
  close(disk);
  const std::string long_name(256, 'n');
  EXPECT_EQ(postcopy_add_anonymous_block(attachment, long_name.c_str(), at, kBytes), -EINVAL);
  EXPECT_EQ(postcopy_remove_block(attachment, at, kBytes), -ENOENT);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(postcopy_add_anonymous_block(attachment, nullptr, at + 4096 * i, 4096), 0);
  }
  EXPECT_EQ(postcopy_add_anonymous_block(attachment, nullptr, at + 4096 * 64, 4096), -ENOSPC);
  postcopy_detach(attachment);
}

TEST_F(AbiAttachTest, RegistersWhenTheFirstBlockIsAddedAndAgainWhenBlocksChange) {
  auto listener = postcopy::UnixListener::Listen(socket_, 0600);
  ASSERT_TRUE(listener.ok());
  const auto options = Options();
  postcopy_attachment* attachment = nullptr;
  ASSERT_EQ(postcopy_attach(&options, &attachment), 0);
  ASSERT_EQ(postcopy_add_shared_block(attachment, "ram", memory_, kBytes, file_, 0), 0);
  auto daemon = AwaitConnection(*listener);
  auto message = AwaitRegister(daemon);
  EXPECT_EQ(message.vm_name, "web");
  ASSERT_EQ(message.blocks.size(), 1u);
  EXPECT_EQ(message.blocks[0].name, "ram");
  EXPECT_EQ(message.blocks[0].address, reinterpret_cast<uintptr_t>(memory_));
  EXPECT_THAT(message.blocks[0].path, HasSubstr("memfd:ram"));
  EXPECT_EQ(postcopy_remove_block(attachment, memory_, kBytes), 0);
  EXPECT_TRUE(AwaitRegister(daemon).blocks.empty());
  postcopy_detach(attachment);
}

TEST_F(AbiAttachTest, TheWrapperOwnsTheAttachment) {
  auto listener = postcopy::UnixListener::Listen(socket_, 0600);
  ASSERT_TRUE(listener.ok());
  std::error_code error;
  auto attachment = postcopy::Attachment::Attach({"web", socket_, "", [](const auto&) {}}, error);
  ASSERT_FALSE(error) << error.message();
  ASSERT_TRUE(attachment);
  auto moved = std::move(attachment);
  EXPECT_FALSE(attachment);  // NOLINT: what a moved-from attachment is
  EXPECT_FALSE(moved.AddSharedBlock("ram", memory_, kBytes, file_, 0));
  auto daemon = AwaitConnection(*listener);
  EXPECT_EQ(AwaitRegister(daemon).blocks.size(), 1u);
  moved = postcopy::Attachment();
  EXPECT_TRUE(Await([&] { return !daemon.Receive().ok(); })) << "the connection has ended";

  auto refused = postcopy::Attachment::Attach({"", socket_, "", {}}, error);
  EXPECT_EQ(error, std::errc::invalid_argument);
  EXPECT_FALSE(refused);
}

TEST_F(AbiAttachTest, TheLibraryShowsItsAbiOnly) {
  FILE* pipe = popen("nm -D --defined-only " POSTCOPY_LIBRARY " | awk '{print $3}'", "r");
  char line[256];
  std::vector<std::string> names;
  while (fgets(line, sizeof line, pipe) != nullptr) names.push_back(line);
  pclose(pipe);
  EXPECT_GE(names.size(), 6u);
  EXPECT_THAT(names, Each(::testing::AnyOf(HasSubstr("postcopy_"), HasSubstr("POSTCOPY_"))));
  EXPECT_EQ(postcopy_version(), std::string("0.1.0"));
}

}  // namespace
