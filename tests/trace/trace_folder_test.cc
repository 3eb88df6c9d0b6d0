#include "trace/trace_folder.h"

#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "gmock/gmock.h"
#include "trace/trace_text.h"

namespace postcopy {
namespace {

using std::chrono::microseconds;

class TraceFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    char path[] = "/tmp/postcopy-trace-XXXXXX";
    ASSERT_NE(mkdtemp(path), nullptr);
    folder_ = path;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
};

TEST_F(TraceFolderTest, WhatWasRecordedIsWritten) {
  const SessionId session{{std::byte{0xab}}};
  const TimePoint start = TimePoint{} + microseconds(1000);
  FaultTrace recorded(1);
  recorded.NoteStart(start);
  recorded.NoteData({0}, {{2}, 3});
  recorded.NoteResume(start + microseconds(50));
  recorded.Add({start + microseconds(20), {{0}, {4}}, FaultKind::kAsked, microseconds(7)});
  recorded.Add({start + microseconds(30), {{0}, {5}}, FaultKind::kAsked, microseconds(7)});

  const auto folder = TraceFolder::Open(folder_ + "/below/it");
  ASSERT_TRUE(folder.ok()) << folder.status();
  ASSERT_TRUE(
      folder->Write("web1", session, {{{"ram", 8 * kPageBytes}}}, {kPageBytes}, recorded).ok());

  std::ifstream file(folder_ + "/below/it/web1-" + session.ToString() + ".trace");
  std::ostringstream text;
  text << file.rdbuf();
  const auto trace = ParseTrace(text.str());
  ASSERT_TRUE(trace.ok()) << trace.status();
  const Trace expected{"web1",
                       session.ToString(),
                       {{"ram", 8, kPageBytes}},
                       {{{0}, {{2}, 3}}},
                       microseconds(50),
                       1,
                       {{microseconds(20), {{0}, {4}}, FaultKind::kAsked, microseconds(7)}}};
  EXPECT_EQ(*trace, expected);
}

TEST_F(TraceFolderTest, FolderThatCannotBeMadeIsRefusedByName) {
  std::ofstream(folder_ + "/file") << "no folder";
  const auto folder = TraceFolder::Open(folder_ + "/file/below");
  ASSERT_FALSE(folder.ok());
  EXPECT_THAT(std::string(folder.status().message()), testing::HasSubstr(folder_ + "/file/below"));
}

}  // namespace
}  // namespace postcopy
