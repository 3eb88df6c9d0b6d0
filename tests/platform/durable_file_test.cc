#include "platform/durable_file.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class DurableFileTest : public testing::Test {
 protected:
  DurableFileTest() {
    char folder[] = "/tmp/postcopy-durable-XXXXXX";
    folder_ = mkdtemp(folder);
    path_ = folder_ + "/record";
  }
  ~DurableFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Content() { return *ReadWholeFile(path_, 1 << 20); }

  std::string folder_;
  std::string path_;
};

TEST_F(DurableFileTest, AFileIsReplacedWholeAndNothingElseIsLeft) {
  ASSERT_TRUE(WriteDurably(path_, "a long content").ok());
  ASSERT_TRUE(WriteDurably(path_, "short").ok());
  EXPECT_EQ(Content(), "short");
  EXPECT_THAT(*ListFolder(folder_), UnorderedElementsAre("record"));
}

TEST_F(DurableFileTest, AFileIsCreatedOnceOnly) {
  EXPECT_TRUE(*CreateDurably(path_, "first"));
  EXPECT_FALSE(*CreateDurably(path_, "second"));
  EXPECT_EQ(Content(), "first");
  EXPECT_THAT(*ListFolder(folder_), UnorderedElementsAre("record"));
}

TEST_F(DurableFileTest, ACreationThatFailsLeavesNothing) {
  const auto created = CreateDurably(folder_ + "/no/record", "x");
  EXPECT_EQ(created.error().code, ErrorCode::kNotFound);
  EXPECT_THAT(created.error().message, HasSubstr(folder_ + "/no/record"));
  std::filesystem::create_directory(path_);
  EXPECT_FALSE(*CreateDurably(path_, "x"));
}

TEST_F(DurableFileTest, PartsAreOverwrittenInPlace) {
  ASSERT_TRUE(WriteDurably(path_, "aaaabbbbaaaacccc").ok());
  const std::array<uint64_t, 2> offsets = {0, 8};
  ASSERT_TRUE(OverwriteDurably(path_, "XXXX", offsets).ok());
  EXPECT_EQ(Content(), "XXXXbbbbXXXXcccc");
  EXPECT_EQ(OverwriteDurably(folder_ + "/other", "X", offsets).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/other"));
}

TEST_F(DurableFileTest, NoMoreIsReadThanTheLimit) {
  ASSERT_TRUE(WriteDurably(path_, "0123456789").ok());
  EXPECT_EQ(*ReadWholeFile(path_, 4), "0123");
  EXPECT_EQ(*ReadWholeFile(path_, 100), "0123456789");
  EXPECT_EQ(ReadWholeFile(folder_ + "/other", 4).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(ReadWholeFile(folder_, 4).error().code, ErrorCode::kIo);
}

// A folder that can't be read now is no empty one.
TEST_F(DurableFileTest, WithoutDescriptorsNothingIsKnown) {
  ASSERT_TRUE(WriteDurably(path_, "x").ok());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto names = ListFolder(folder_);
  const auto content = ReadWholeFile(path_, 10);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(names.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(content.error().code, ErrorCode::kUnavailable);
  EXPECT_EQ(ListFolder(folder_ + "/no").error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace postcopy
