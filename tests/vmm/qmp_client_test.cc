#include "vmm/qmp_client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>

#include "platform/unix_channel.h"
#include "tests/vmm/scripted_qmp.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

constexpr milliseconds kLong{10'000};  // never reached by a passing test
constexpr milliseconds kShort{50};

std::unique_ptr<QmpClient> OpenClient(ScriptedQmp& server) {
  auto client = QmpClient::Open(server.TakeClientEnd(), "/run/x.sock", kLong);
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

QmpAnswer Echo(const Json& request) {
  return {{QmpReturn(request, MemberAt(request, "arguments"))}};
}

TEST(QmpClientTest, CommandReturnsTheReturnMember) {
  ScriptedQmp server(Echo);
  const auto client = OpenClient(server);
  const auto answer = client->Command("migrate", {{"uri", "fd:x"}}, kLong);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, Json({{"uri", "fd:x"}}));
}

TEST(QmpClientTest, RefusalNamesOperationMonitorAndCause) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    const std::string command = StringAt(request, "execute");
    if (command == "old") return {{QmpRefusal(request, "not here", "CommandNotFound")}};
    if (command == "dev") return {{QmpRefusal(request, "no such", "DeviceNotFound")}};
    return {{QmpRefusal(request, "there is a migration")}};
  });
  const auto client = OpenClient(server);
  const auto refused = client->Command("migrate", Json::object(), kLong).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(refused.message(), "qmp migrate at /run/x.sock: there is a migration");
  EXPECT_TRUE(absl::IsUnimplemented(client->Command("old", Json::object(), kLong).status()));
  EXPECT_TRUE(absl::IsNotFound(client->Command("dev", Json::object(), kLong).status()));
}

TEST(QmpClientTest, EventsBetweenAnswersAreKeptInOrderWithTheirStamps) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    return {{QmpEventLine("STOP", Json::object(), 1795263388, 927483) +
             MigrationEventLine("pre-switchover") + QmpReturn(request)}};
  });
  const auto client = OpenClient(server);
  uint64_t cursor = client->EventCursor();
  ASSERT_TRUE(client->Command("x", Json::object(), kLong).ok());
  const auto stop = client->NextEvent(cursor, kLong);
  ASSERT_TRUE(stop.ok());
  EXPECT_EQ(stop->name, "STOP");
  EXPECT_EQ(stop->time.us, 1795263388927483);
  const auto migration = client->NextEvent(cursor, kLong);
  ASSERT_TRUE(migration.ok());
  EXPECT_EQ(StringAt(migration->data, "status"), "pre-switchover");
  EXPECT_TRUE(absl::IsDeadlineExceeded(client->NextEvent(cursor, kShort).status()));
}

TEST(QmpClientTest, CursorLeavesOutWhatCameBefore) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    return {{QmpEventLine(StringAt(request, "execute")), QmpReturn(request)}};
  });
  const auto client = OpenClient(server);
  ASSERT_TRUE(client->Command("FIRST", Json::object(), kLong).ok());
  uint64_t cursor = client->EventCursor();
  ASSERT_TRUE(client->Command("SECOND", Json::object(), kLong).ok());
  EXPECT_EQ(client->NextEvent(cursor, kLong)->name, "SECOND");
}

TEST(QmpClientTest, UnreadEventsAreBoundedAndTheNewestStay) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    std::string text;
    for (size_t i = 0; i < QmpClient::kMaxQueuedEvents + 5; ++i) {
      text += QmpEventLine("E" + std::to_string(i));
    }
    return {{text + QmpReturn(request)}};
  });
  const auto client = OpenClient(server);
  uint64_t cursor = client->EventCursor();
  ASSERT_TRUE(client->Command("x", Json::object(), kLong).ok());
  EXPECT_EQ(client->NextEvent(cursor, kLong)->name, "E5");
}

TEST(QmpClientTest, LargeEventsAreBoundedByTheirBytes) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    const Json data = std::string(QmpClient::kMaxQueuedEventBytes / 2 - 1000, 'x');
    return {{QmpEventLine("A", data) + QmpEventLine("B", data) + QmpEventLine("C", data) +
             QmpReturn(request)}};
  });
  const auto client = OpenClient(server);
  uint64_t cursor = client->EventCursor();
  ASSERT_TRUE(client->Command("x", Json::object(), kLong).ok());
  EXPECT_EQ(client->NextEvent(cursor, kLong)->name, "B");
  EXPECT_EQ(client->NextEvent(cursor, kLong)->name, "C");
}

TEST(QmpClientTest, AnyChunkingGivesTheSameAnswer) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    QmpAnswer answer;
    const std::string text = QmpEventLine("STOP") + QmpReturn(request, "value");
    for (char byte : text) answer.pieces.emplace_back(1, byte);
    return answer;
  });
  const auto client = OpenClient(server);
  const auto answer = client->Command("x", Json::object(), kLong);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, Json("value"));
}

// As with `-mon pretty=on`.
TEST(QmpClientTest, AMessageMayHaveManyLines) {
  ScriptedQmp server(
      [](const Json& request) -> QmpAnswer {
        const Json answer = {{"return", {{"status", "running"}}}, {"id", request.at("id")}};
        const Json event = {{"event", "STOP"}, {"data", Json::object()}};
        return {{event.dump(4) + "\r\n" + answer.dump(4) + "\r\n"}};
      },
      "{\n    \"QMP\": {\n        \"capabilities\": [\n        ]\n    }\n}\r\n");
  const auto client = OpenClient(server);
  uint64_t cursor = client->EventCursor();
  const auto answer = client->Command("query-status", Json::object(), kLong);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(StringAt(*answer, "status"), "running");
  EXPECT_EQ(client->NextEvent(cursor, kLong)->name, "STOP");
}

TEST(QmpClientTest, AStormOfEventsEndsTheConnection) {
  ScriptedQmp server([](const Json&) -> QmpAnswer {
    std::string storm;
    for (size_t i = 0; i <= QmpClient::kMaxMessagesPerSecond; ++i) storm += "{\"event\":\"X\"}\n";
    return {{storm, storm, storm, storm, storm}};
  });
  const auto client = OpenClient(server);
  const auto status = client->Command("x", Json::object(), kLong).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("more than 20000 messages"));
}

TEST(QmpClientTest, WhatAVmmSaysIsPrintable) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    if (StringAt(request, "execute") == "status") {
      return {{QmpReturn(request, {{"status", "run\x1b[31m\nning"}})}};
    }
    return {{QmpRefusal(request, "no\x1b]0;PWNED\x07\n2026-11-28 info forged")}};
  });
  const auto client = OpenClient(server);
  const auto answer = client->Command("status", Json::object(), kLong);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(StringAt(*answer, "status"), "run\\x1b[31m\\x0aning");
  EXPECT_EQ(client->Command("x", Json::object(), kLong).status().message(),
            "qmp x at /run/x.sock: no\\x1b]0;PWNED\\x07\\x0a2026-11-28 info forged");
}

TEST(QmpClientTest, NothingIsWrittenToAnotherProcessThanTheVms) {
  char folder[] = "/tmp/postcopy-qmp-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string path = std::string(folder) + "/qmp.sock";
  const std::string link = std::string(folder) + "/link.sock";  // followed; who answers counts
  ASSERT_EQ(symlink(path.c_str(), link.c_str()), 0);
  auto listener = UnixListener::Listen(path, 0600);
  ASSERT_TRUE(listener.ok());
  for (const std::string& way : {path, link}) {
    const auto status = QmpClient::Connect(way, getpid() + 1, kLong).status();
    EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("belongs to process " + std::to_string(getpid()) + ", but"));
    auto accepted = listener->Accept();
    ASSERT_TRUE(accepted.ok());
    std::array<std::byte, 64> bytes;
    std::vector<UniqueFd> descriptors;
    const auto got = accepted->Receive(bytes, descriptors);
    EXPECT_FALSE(got.ok()) << *got << " bytes were written";  // closed, and nothing before
  }
  std::filesystem::remove_all(folder);
}

TEST(QmpClientTest, SilenceIsATimeoutAndTheLateAnswerIsDropped) {
  std::string late;
  ScriptedQmp server([&late](const Json& request) -> QmpAnswer {
    if (StringAt(request, "execute") == "slow") {
      late = QmpReturn(request, "late");
      return {};
    }
    return {{late + QmpReturn(request, "mine")}};
  });
  const auto client = OpenClient(server);
  const auto slow = client->Command("slow", Json::object(), kShort).status();
  EXPECT_EQ(slow.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(slow.message(), "qmp slow at /run/x.sock: no answer within 50 ms");
  EXPECT_TRUE(client->OwesAnAnswer());
  const auto next = client->Command("next", Json::object(), kLong);
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(*next, Json("mine"));
  EXPECT_FALSE(client->OwesAnAnswer());
}

TEST(QmpClientTest, HangUpWithinALineEndsTheCallAndAllLaterOnes) {
  ScriptedQmp server([](const Json&) -> QmpAnswer { return {{"{\"return\": "}, true}; });
  const auto client = OpenClient(server);
  const auto cut = client->Command("quit", Json::object(), kLong).status();
  EXPECT_EQ(cut.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(cut.message(), "qmp quit at /run/x.sock: the VMM has closed the connection");
  EXPECT_TRUE(absl::IsUnavailable(client->Command("x", Json::object(), kLong).status()));
  uint64_t cursor = client->EventCursor();
  EXPECT_TRUE(absl::IsUnavailable(client->NextEvent(cursor, kLong).status()));
}

TEST(QmpClientTest, GarbageEndsTheConnection) {
  for (const char* garbage : {"not json\n", "[1,2]\n", "{\"return\" {}}\n", "{\"a\": \"\xff\xfe\"}\n",
                              "\xff\xfe\n", "{\"return\": {}]\n"}) {
    ScriptedQmp server([&](const Json&) -> QmpAnswer { return {{garbage}}; });
    const auto client = OpenClient(server);
    const auto status = client->Command("x", Json::object(), kLong).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << garbage;
    EXPECT_THAT(std::string(status.message()), HasSubstr("JSON object"));
  }
}

// To copy a value takes stack for each of its levels.
TEST(QmpClientTest, MessageThatIsNestedTooDeepEndsTheConnection) {
  for (const char* key : {"return", "data"}) {
    ScriptedQmp server([&](const Json& request) -> QmpAnswer {
      const std::string head = absl::StrFormat("{\"event\": \"X\", \"id\": %d, \"%s\": ",
                                               UnsignedAt(request, "id"), key);
      const size_t levels = (QmpClient::kMaxMessageBytes - head.size() - 1) / 2;
      return {{head + std::string(levels, '[') + std::string(levels, ']') + "}\n"}};
    });
    const auto client = OpenClient(server);
    const auto status = client->Command("x", Json::object(), kLong).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("not a JSON object of at most 1024 levels"));
  }
}

TEST(QmpClientTest, MessageAboveTheLimitEndsTheConnection) {
  for (const char* end : {"", "0}\n"}) {
    ScriptedQmp server([&](const Json&) -> QmpAnswer {
      return {{"{\"x\":" + std::string(QmpClient::kMaxMessageBytes, ' ') + end}};
    });
    const auto client = OpenClient(server);
    const auto status = client->Command("x", Json::object(), kLong).status();
    EXPECT_TRUE(absl::IsUnavailable(status));
    EXPECT_THAT(std::string(status.message()), HasSubstr("longer than 4194304 bytes"));
  }
}

TEST(QmpClientTest, AnswersOfUnknownFormAreNotTakenForOthers) {
  ScriptedQmp server([](const Json& request) -> QmpAnswer {
    return {{"\r\n{}\r\n{\"return\": 1}\r\n{\"return\": 2, \"id\": \"1\"}\r\n"
             "{\"return\": 3, \"id\": -1}\r\n" + QmpReturn(request, 4)}};
  });
  const auto client = OpenClient(server);
  EXPECT_EQ(client->Command("x", Json::object(), kLong).value(), Json(4));
}

TEST(QmpClientTest, MonitorThatIsHeldByAnotherClientIsATimeout) {
  ScriptedQmp server(Echo, "");
  const auto status = QmpClient::Open(server.TakeClientEnd(), "/run/x.sock", kShort).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(status.message()), HasSubstr("another client may hold this monitor"));
}

TEST(QmpClientTest, NobodyListens) {
  const auto missing = QmpClient::Connect("/nonexistent/qmp.sock", getpid(), kShort).status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(missing.message(), "connect /nonexistent/qmp.sock: No such file or directory");
}

TEST(QmpClientTest, DescriptorArrivesWithItsName) {
  Json arguments;
  ScriptedQmp server([&](const Json& request) -> QmpAnswer {
    arguments = MemberAt(request, "arguments");
    return {{QmpReturn(request)}};
  });
  const auto client = OpenClient(server);
  auto ends = MakeStreamPair();
  ASSERT_TRUE(client->PassDescriptor("state", ends->second.get(), kLong).ok());
  EXPECT_EQ(arguments, Json({{"fdname", "state"}}));
  const UniqueFd passed = server.TakePassedFd();
  ASSERT_TRUE(passed.valid());
  SendBytes(passed.get(), "hello", -1, kLong);
  std::array<char, 16> buffer;
  const StreamResult got = ReceiveBytes(ends->first.get(), buffer, kLong);
  EXPECT_EQ(std::string(buffer.data(), got.bytes), "hello");
}

TEST(QmpClientTest, ThreadsShareTheConnection) {
  ScriptedQmp server(Echo);
  const auto client = OpenClient(server);
  std::vector<std::jthread> threads;
  std::atomic<int> right{0};
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (int i = 0; i < 100; ++i) {
        const Json mine = {{"n", thread * 1000 + i}};
        const auto answer = client->Command("x", mine, kLong);
        if (answer.ok() && *answer == mine) ++right;
      }
    });
  }
  threads.clear();
  EXPECT_EQ(right, 400);
}

}  // namespace
}  // namespace postcopy
