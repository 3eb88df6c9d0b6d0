#include "cli/exit_code.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

namespace postcopy {
namespace {

ExitCode For(absl::StatusCode code) { return ForStatus(absl::Status(code, "x")); }

TEST(ExitCodeTest, FollowsTheDaemonsCode) {
  EXPECT_EQ(static_cast<int>(ForStatus(absl::OkStatus())), 0);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kUnknown)), 1);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kInvalidArgument)), 2);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kNotFound)), 3);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kFailedPrecondition)), 4);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kUnavailable)), 5);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kDeadlineExceeded)), 5);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kAborted)), 6);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kCancelled)), 7);
  EXPECT_EQ(static_cast<int>(For(absl::StatusCode::kInternal)), 8);
}

TEST(ExitCodeTest, FollowsTheStateInWhichASessionEnded) {
  EXPECT_EQ(ForEndState(v1::STATE_COMMITTED), ExitCode::kOk);
  EXPECT_EQ(ForEndState(v1::STATE_ROLLED_BACK), ExitCode::kRolledBack);
  EXPECT_EQ(ForEndState(v1::STATE_CANCELLED), ExitCode::kCancelled);
  for (const v1::State state : {v1::STATE_FAILED, v1::STATE_UNKNOWN, v1::STATE_RUNNING,
                                v1::STATE_UNSPECIFIED, static_cast<v1::State>(99)}) {
    EXPECT_EQ(ForEndState(state), ExitCode::kUnfinished) << state;
  }
}

TEST(ExitCodeTest, TheTableHasEachWordOnceAndIsInTheOrderOfTheCodes) {
  std::set<std::string_view> words;
  ExitCode last = ExitCode::kOk;
  for (const Outcome& outcome : Outcomes()) {
    EXPECT_TRUE(words.insert(outcome.word).second) << outcome.word;
    EXPECT_GE(static_cast<int>(outcome.code), static_cast<int>(last));
    last = outcome.code;
  }
  const std::string help = ExitCodeHelp();
  EXPECT_EQ(help.substr(0, help.find('\n')), "  0  ok, prepared, switched, committed: done");
  EXPECT_EQ(std::count(help.begin(), help.end(), '\n'), 9);
}

TEST(ExitCodeTest, EachHasItsOwnWord) {
  std::set<std::string_view> words;
  for (int code = 0; code <= 8; ++code) words.insert(OutcomeWord(static_cast<ExitCode>(code)));
  EXPECT_EQ(words.size(), 9u);
}

}  // namespace
}  // namespace postcopy
