#include "preload/attachment.h"

#include <string>

#include "gmock/gmock.h"

namespace postcopy::preload {
namespace {

std::string Without(std::string preload, const char* own) {
  BlankOwnEntry(preload.data(), own);
  return preload;
}

TEST(AttachmentTest, OnlyItsOwnEntryLeavesTheEnvironment) {
  EXPECT_EQ(Without("/lib/hook.so", "/lib/hook.so"), "            ");
  EXPECT_EQ(Without("/lib/a.so:/lib/hook.so:/lib/b.so", "/lib/hook.so"),
            "/lib/a.so:            :/lib/b.so");
  EXPECT_EQ(Without("a.so hook.so", "/lib/hook.so"), "a.so        ");
  EXPECT_EQ(Without("./hook.so", "/elsewhere/hook.so"), "         ");
  EXPECT_EQ(Without("/lib/nothook.so", "/lib/hook.so"), "/lib/nothook.so");
  EXPECT_EQ(Without("", "/lib/hook.so"), "");
  EXPECT_EQ(Without("::a.so::", "/lib/hook.so"), "::a.so::");
}

}  // namespace
}  // namespace postcopy::preload
