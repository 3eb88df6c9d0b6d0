// Monitors that answer, hang, babble or belong to somebody else, asked all at once.
#include "vmm/guest_states.h"

#include <stdlib.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platform/unix_channel.h"
#include "tests/vmm/scripted_qmp.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
using ::testing::HasSubstr;

constexpr milliseconds kLimit{300};
constexpr std::string_view kAnswers =
    "{\"return\": {}, \"id\": 1}\r\n"
    "{\"return\": {\"status\": \"running\"}, \"id\": 2}\r\n"
    "{\"return\": {}, \"id\": 3}\r\n";

// A monitor socket of this process that says `says` to whoever connects, `times` times each.
class PlayedMonitor {
 public:
  PlayedMonitor(const std::string& path, std::string says, int times = 1)
      : path_(path), listener_(*UnixListener::Listen(path, 0600)) {
    thread_ = std::jthread([this, says = std::move(says), times](std::stop_token ending) {
      while (!ending.stop_requested()) {
        auto accepted = listener_.Accept();
        if (!accepted.ok()) {
          std::this_thread::yield();
          continue;
        }
        for (int i = 0; i < times && !ending.stop_requested(); ++i) {
          if (!accepted->Send(std::as_bytes(std::span(says)), {}, milliseconds(100)).ok()) break;
        }
        kept_.push_back(std::move(*accepted));
      }
    });
  }
  Monitor address() const { return {path_, getpid()}; }

 private:
  const std::string path_;
  UnixListener listener_;
  std::vector<UnixChannel> kept_;
  std::jthread thread_;
};

class GuestStatesTest : public testing::Test {
 protected:
  GuestStatesTest() {
    char folder[] = "/tmp/postcopy-guests-XXXXXX";
    folder_ = mkdtemp(folder);
  }
  ~GuestStatesTest() override { std::filesystem::remove_all(folder_); }
  std::string Path() { return folder_ + "/" + std::to_string(++count_); }
  GuestAnswer Ask(const Monitor& monitor, milliseconds limit = kLimit) {
    return AskGuestStates({monitor}, limit).front();
  }

  std::string folder_;
  int count_ = 0;
};

TEST_F(GuestStatesTest, SilentMonitorsCostTheLimitOnceAndHideNobody) {
  std::vector<std::unique_ptr<PlayedMonitor>> silent;
  std::vector<Monitor> monitors;
  for (int i = 0; i < 12; ++i) {
    silent.push_back(std::make_unique<PlayedMonitor>(Path(), "", 0));
    monitors.push_back(silent.back()->address());
  }
  PlayedMonitor good(Path(), std::string(ScriptedQmp::kGreeting) + std::string(kAnswers));
  monitors.push_back(good.address());
  const auto began = steady_clock::now();
  const auto answers = AskGuestStates(monitors, kLimit);
  EXPECT_LT(steady_clock::now() - began, 5 * kLimit);
  ASSERT_EQ(answers.size(), 13u);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(answers[i].problem, "no answer from its monitor within 300 ms");
    EXPECT_EQ(answers[i].state_text, "");
  }
  EXPECT_EQ(answers[12].state_text, "running");
  EXPECT_EQ(answers[12].problem, "");
}

TEST_F(GuestStatesTest, ManyLinesAMessageAndEventsBetweenAreFine) {
  PlayedMonitor monitor(Path(),
                        "{\n \"QMP\": {\n }\n}\n{\"event\": \"STOP\"}{\n \"return\": {}, \"id\": 1\n}\n"
                        "{\"return\": {\n\"status\": \"paused\"}, \"id\": 2}\n{\"event\": \"X\"}\n"
                        "{\"return\": {\"status\": \"active\"}, \"id\": 3}");
  EXPECT_EQ(Ask(monitor.address(), milliseconds(10'000)).state_text, "paused, migration active");
}

TEST_F(GuestStatesTest, AStormOfEventsIsCutOff) {
  std::string events;
  while (events.size() < 10'000) events += "{\"event\": \"X\"}\n";
  PlayedMonitor storm(Path(), std::string(ScriptedQmp::kGreeting) + events, 1'000'000);
  EXPECT_THAT(Ask(storm.address(), milliseconds(60'000)).problem,
              HasSubstr("bytes and no answer"));
}

TEST_F(GuestStatesTest, WhatIsNoMonitorIsNamed) {
  const std::string file = Path();
  ASSERT_NE(fopen(file.c_str(), "w"), nullptr);
  const struct {
    Monitor monitor;
    const char* problem;
  } cases[] = {
      {{"", getpid()}, "it has told no monitor socket: start its QEMU with POSTCOPY_QMP"},
      {{folder_ + "/none", getpid()}, "its monitor: connect "},
      {{file, getpid()}, "its monitor: connect "},
  };
  for (const auto& each : cases) {
    EXPECT_THAT(Ask(each.monitor).problem, HasSubstr(each.problem)) << each.monitor.path;
  }
  PlayedMonitor garbage(Path(), "SSH-2.0\r\n");
  EXPECT_THAT(Ask(garbage.address()).problem, HasSubstr("not a JSON object"));
  PlayedMonitor escapes(Path(), std::string(ScriptedQmp::kGreeting) +
                                    "{\"return\":{\"status\":\"run\\u001b[31m\"},\"id\":2}"
                                    "{\"return\":{},\"id\":3}");
  EXPECT_EQ(Ask(escapes.address()).state_text, "run\\x1b[31m");
}

TEST_F(GuestStatesTest, NothingIsWrittenToAnotherProcessThanTheVms) {
  const std::string path = Path();
  auto listener = UnixListener::Listen(path, 0600);
  ASSERT_TRUE(listener.ok());
  EXPECT_THAT(Ask({path, getpid() + 1}).problem,
              HasSubstr("belongs to process " + std::to_string(getpid())));
  auto accepted = listener->Accept();
  ASSERT_TRUE(accepted.ok());
  std::array<std::byte, 64> bytes;
  std::vector<UniqueFd> descriptors;
  EXPECT_FALSE(accepted->Receive(bytes, descriptors).ok());  // closed, and nothing before
}

}  // namespace
}  // namespace postcopy
