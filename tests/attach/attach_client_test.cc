// The client against the daemon's real agent server; the "VMM" is this process.
#include "attach/attach_client.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "platform/duplicate_fd.h"
#include "platform/ram_file.h"
#include "platform/userfault.h"
#include "server/agent_server.h"

namespace postcopy {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kBytes = 4 << 20;
constexpr uint64_t kPage = 4096;
constexpr std::chrono::seconds kSoon{10};
const SessionId kSession{{std::byte{1}}};
const SessionId kOther{{std::byte{2}}};

bool Eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 4000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

class AttachClientTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/postcopy-attach-XXXXXX";
    directory_ = mkdtemp(name);
    file_.Reset(memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(ftruncate(file_.get(), kBytes), 0);
    memory_ = static_cast<volatile char*>(
        mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_.get(), 0));
    StartDaemon();
  }
  void TearDown() override {
    client_.reset();
    table_->CloseAll();
    StopDaemon();
    munmap(const_cast<char*>(memory_), kBytes);
    std::filesystem::remove_all(directory_);
  }
  void StartDaemon() {
    registry_ = std::make_unique<VmRegistry>();
    auto server = AgentServer::Start({directory_, 0600}, *registry_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void StopDaemon() {
    server_.reset();
    registry_.reset();
  }
  AttachOptions Options(const std::string& name = "vm") {
    AttachOptions options;
    options.vm_name = name;
    options.agent_path = directory_ + "/agent.sock";
    options.first_pause = options.longest_pause = std::chrono::milliseconds(10);
    options.notice = [this](const std::string& text) {
      absl::MutexLock lock(&mutex_);
      notices_.push_back(text);
    };
    return options;
  }
  void StartClient() {
    auto client = AttachClient::Start(Options(), *table_);
    ASSERT_TRUE(client.ok()) << client.error().message;
    client_ = std::move(*client);
  }
  void AddRam() {
    BlockTable::NewBlock block;
    block.kind = wire::BlockKind::kSharedFile;
    block.address = reinterpret_cast<uintptr_t>(memory_);
    block.size_bytes = kBytes;
    block.ram_file = DuplicateFd(file_)->Release();
    block.name = "ram";
    ASSERT_EQ(table_->Add(block), BlockTable::AddOutcome::kAdded);
    if (client_ != nullptr) client_->BlocksChanged();
  }
  bool Registered(size_t count_blocks = 1) {
    return Eventually([&] {
      auto record = registry_->Find("vm");
      return record.ok() && record->connected && record->blocks.size() == count_blocks;
    });
  }
  std::vector<std::string> Notices() {
    absl::MutexLock lock(&mutex_);
    return notices_;
  }
  void Serve(const UniqueFd& userfault, uint64_t page) {
    std::array<FaultEvent, 8> events;
    ASSERT_TRUE(Eventually([&] {
      auto count = ReadFaultEvents(userfault.get(), events);
      return count.ok() && *count > 0;
    }));
    EXPECT_EQ(events[0].address / kPage * kPage, reinterpret_cast<uintptr_t>(memory_) + page * kPage);
    const std::array content{std::byte{42}};
    EXPECT_EQ(WriteRamFile(file_.get(), page * kPage, content), 0);
    ContinuePages(userfault.get(), reinterpret_cast<uintptr_t>(memory_) + page * kPage, kPage);
  }
  char Read(uint64_t page) { return memory_[page * kPage]; }

  uint64_t address() const { return reinterpret_cast<uintptr_t>(memory_); }
  absl::Status Fence(const SessionId& session) {
    const auto fence = registry_->BeginFence("vm", session, {address()});
    return fence.ok() ? registry_->AwaitFence(*fence, kSoon) : fence.status();
  }
  // Whether this process may read guest RAM: a system call that is given it says so, without dying.
  bool MayTouch() const {
    const UniqueFd sink(memfd_create("sink", MFD_CLOEXEC));
    return write(sink.get(), const_cast<const char*>(memory_), 1) == 1;
  }

  std::string directory_;
  UniqueFd file_;
  volatile char* memory_ = nullptr;
  std::unique_ptr<BlockTable> table_ = std::make_unique<BlockTable>();
  const UniqueFd keepsake_{memfd_create("keepsake", MFD_CLOEXEC)};
  std::unique_ptr<VmRegistry> registry_;
  std::unique_ptr<AgentServer> server_;
  std::unique_ptr<AttachClient> client_;
  absl::Mutex mutex_;
  std::vector<std::string> notices_;
};

TEST_F(AttachClientTest, LooksForNoDaemonBeforeThereIsABlock) {
  StopDaemon();
  StartClient();
  StartDaemon();
  AddRam();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Eventually([&] { return !Notices().empty(); }));
  EXPECT_THAT(Notices(), ElementsAre(HasSubstr("VM vm is registered")));
  EXPECT_EQ(registry_->Find("vm")->blocks[0].name, "ram");
}

TEST_F(AttachClientTest, SendsTheListAgainWhenItGrowsOrShrinks) {
  AddRam();
  StartClient();
  ASSERT_TRUE(Registered(1));
  BlockTable::NewBlock block;
  block.address = address() + (uint64_t{1} << 40);
  block.size_bytes = kBytes;
  table_->Add(block);
  client_->BlocksChanged();
  ASSERT_TRUE(Registered(2));
  table_->RemoveOverlapping(reinterpret_cast<uintptr_t>(memory_), kBytes);
  client_->BlocksChanged();
  ASSERT_TRUE(Registered(1));
}

TEST_F(AttachClientTest, ItsThreadTakesNoSignal) {
  StartClient();
  std::string blocked;
  ASSERT_TRUE(Eventually([&] {
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::string name, line;
      std::getline(std::ifstream(task.path() / "comm") >> std::ws, name);
      if (name != "postcopy") continue;
      std::ifstream status(task.path() / "status");
      while (std::getline(status, line)) {
        if (line.rfind("SigBlk:", 0) == 0) blocked = line;
      }
      return true;
    }
    return false;
  }));
  // All but SIGKILL, SIGSTOP and what libc keeps for itself (32 and 33).
  EXPECT_THAT(blocked, HasSubstr("fffffffe7ffbfeff"));
}

TEST_F(AttachClientTest, ArmsServesAndReleases) {
  AddRam();
  memory_[5 * kPage] = 1;
  StartClient();
  ASSERT_TRUE(Registered());
  auto armed = registry_->Arm("vm", kSession, kSoon, keepsake_);
  ASSERT_TRUE(armed.ok()) << armed.status();
  ASSERT_EQ(armed->blocks.size(), 1u);
  char seen = 0;
  std::thread guest([&] { seen = Read(5); });
  Serve(armed->userfault, 5);
  guest.join();
  EXPECT_EQ(seen, 42);

  auto again = registry_->Arm("vm", kOther, kSoon, keepsake_);
  EXPECT_TRUE(absl::IsFailedPrecondition(again.status()));
  EXPECT_THAT(std::string(again.status().message()), HasSubstr("armed already, for session 01"));

  armed->userfault.Reset();
  EXPECT_TRUE(registry_->Release("vm", kSession).ok());
  EXPECT_FALSE(registry_->Find("vm")->arming.has_value());
  EXPECT_EQ(Read(6), 0) << "nothing holds the userfaultfd any more";
  EXPECT_TRUE(registry_->Release("vm", kSession).ok()) << "releasing twice is no error";
  EXPECT_TRUE(registry_->Arm("vm", kOther, kSoon, keepsake_).ok());
}

TEST_F(AttachClientTest, TellsARestartedDaemonWhatIsArmed) {
  AddRam();
  StartClient();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(registry_->Arm("vm", kSession, kSoon, keepsake_).ok());
  StopDaemon();
  char seen = 0;
  std::thread guest([&] { seen = Read(2); });
  StartDaemon();
  ASSERT_TRUE(Registered());
  auto record = registry_->Find("vm");
  ASSERT_TRUE(record.ok() && record->arming.has_value());
  EXPECT_EQ(record->arming->session_id, kSession);
  EXPECT_THAT(record->arming->blocks, ElementsAre(0));
  EXPECT_TRUE(*IsSameRamFile(record->arming->keepsake.get(), keepsake_.get()));
  Serve(record->arming->userfault, 2);
  guest.join();
  EXPECT_EQ(seen, 42);
  EXPECT_THAT(Notices(), Contains(HasSubstr("lost the daemon")).Times(1));
}

TEST_F(AttachClientTest, FencesAndUnfences) {
  AddRam();
  memory_[0] = 42;
  StartClient();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Fence(kSession).ok());
  EXPECT_FALSE(MayTouch());
  const absl::Status again = Fence(kOther);
  EXPECT_THAT(std::string(again.message()), HasSubstr("fenced already, for session 01"));
  const auto armed = registry_->Arm("vm", kOther, kSoon, keepsake_);
  EXPECT_THAT(std::string(armed.status().message()), HasSubstr("fenced, for session 01"));
  EXPECT_TRUE(registry_->Unfence("vm", kOther).ok());
  EXPECT_FALSE(MayTouch()) << "the fence is another session's";
  EXPECT_TRUE(registry_->Unfence("vm", kSession).ok());
  EXPECT_TRUE(MayTouch());
  EXPECT_EQ(Read(0), 42) << "nothing is lost behind a fence";
  EXPECT_TRUE(Fence(kOther).ok());
}

TEST_F(AttachClientTest, AFenceOutlivesTheDaemonAndTheNextOneLiftsIt) {
  AddRam();
  StartClient();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Fence(kSession).ok());
  StopDaemon();
  EXPECT_FALSE(MayTouch());
  StartDaemon();
  ASSERT_TRUE(Registered());
  EXPECT_EQ(registry_->Find("vm")->fenced_for, kSession);
  EXPECT_TRUE(registry_->Unfence("vm", kSession).ok());
  EXPECT_TRUE(MayTouch());
}

TEST_F(AttachClientTest, ABlockThatIsUnmappedLeavesTheFence) {
  AddRam();
  StartClient();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Fence(kSession).ok());
  BlockTable::NewBlock block;
  block.address = address() + (uint64_t{1} << 40);
  block.size_bytes = kBytes;
  table_->Add(block);
  table_->RemoveOverlapping(address(), kBytes);
  client_->BlocksChanged();
  ASSERT_TRUE(Eventually([&] { return !registry_->Find("vm")->fenced_for.has_value(); }));
}

TEST_F(AttachClientTest, WhatIsArmedIsNotFenced) {
  AddRam();
  StartClient();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(registry_->Arm("vm", kSession, kSoon, keepsake_).ok());
  EXPECT_THAT(std::string(Fence(kSession).message()), HasSubstr("armed, for session 01"));
}

TEST_F(AttachClientTest, SaysOnceThatTheDaemonIsMissingAndOnceThatItCame) {
  StopDaemon();
  AddRam();
  StartClient();
  ASSERT_TRUE(Eventually([&] { return !Notices().empty(); }));
  StartDaemon();
  ASSERT_TRUE(Registered());
  ASSERT_TRUE(Eventually([&] { return Notices().size() == 2; }));
  EXPECT_THAT(Notices(),
              ElementsAre(HasSubstr("no daemon yet"), HasSubstr("VM vm is registered")));
}

TEST_F(AttachClientTest, ABlockNumberThatDoesNotExistIsRefusedInWords) {
  AddRam();
  StartClient();
  ASSERT_TRUE(Registered());
  auto armed = registry_->Arm("vm", kSession, kSoon, keepsake_, {7});
  EXPECT_FALSE(armed.ok());
  EXPECT_THAT(std::string(armed.status().message()), HasSubstr("there is no RAM block 7"));
  EXPECT_TRUE(registry_->Arm("vm", kSession, kSoon, keepsake_).ok());
}

TEST_F(AttachClientTest, ANameThatTheProtocolDoesNotCarryIsRefusedAtTheStart) {
  EXPECT_EQ(AttachClient::Start(Options(""), *table_).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(AttachClient::Start(Options("a/b"), *table_).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace postcopy
