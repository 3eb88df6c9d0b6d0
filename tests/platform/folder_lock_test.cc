#include "platform/folder_lock.h"

#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

class FolderLockTest : public testing::Test {
 protected:
  FolderLockTest() {
    char folder[] = "/tmp/postcopy-lock-XXXXXX";
    top_ = mkdtemp(folder);
    folder_ = top_ + "/state";
  }
  ~FolderLockTest() override { std::filesystem::remove_all(top_); }

  std::string top_;
  std::string folder_;
};

TEST_F(FolderLockTest, TheSecondUserIsToldWhoTheFirstIs) {
  auto first = FolderLock::Take(folder_);
  ASSERT_TRUE(first.ok()) << first.error().message;
  const auto second = FolderLock::Take(folder_);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(second.error().message,
            "another uffd-server (pid " + std::to_string(getpid()) + ") uses " + folder_);
}

TEST_F(FolderLockTest, ItIsFreeWhenItsUserHasEnded) {
  { ASSERT_TRUE(FolderLock::Take(folder_).ok()); }
  EXPECT_TRUE(std::filesystem::exists(FolderLock::PathIn(folder_)));
  EXPECT_TRUE(FolderLock::Take(folder_).ok());
}

TEST_F(FolderLockTest, ALockFileThatWasLeftLocksNothing) {
  std::filesystem::create_directory(folder_);
  std::ofstream(FolderLock::PathIn(folder_)) << "999999999999999";
  const auto taken = FolderLock::Take(folder_);
  ASSERT_TRUE(taken.ok()) << taken.error().message;
  std::string pid;
  std::ifstream(FolderLock::PathIn(folder_)) >> pid;
  EXPECT_EQ(pid, std::to_string(getpid()));
}

TEST_F(FolderLockTest, AFolderThatCannotBeMadeIsNamed) {
  std::ofstream(folder_) << "a file";
  const auto taken = FolderLock::Take(folder_ + "/run");
  ASSERT_FALSE(taken.ok());
  EXPECT_NE(taken.error().message.find(folder_ + "/run"), std::string::npos);
}

}  // namespace
}  // namespace postcopy
