#include "preload/attachment.h"

#include <cstring>
#include <string>

#include "gmock/gmock.h"

namespace postcopy::preload {
namespace {

std::string Without(const char* preload, const char* own) {
  std::string result(std::strlen(preload) + 1, '#');
  RemoveOwnEntry(preload, own, result.data());
  return result.c_str();
}

TEST(AttachmentTest, OnlyItsOwnEntryLeavesTheEnvironment) {
  EXPECT_EQ(Without("/lib/hook.so", "/lib/hook.so"), "");
  EXPECT_EQ(Without("/lib/a.so:/lib/hook.so:/lib/b.so", "/lib/hook.so"), "/lib/a.so:/lib/b.so");
  EXPECT_EQ(Without("a.so hook.so", "/lib/hook.so"), "a.so");
  EXPECT_EQ(Without("./hook.so", "/elsewhere/hook.so"), "");
  EXPECT_EQ(Without("/lib/nothook.so", "/lib/hook.so"), "/lib/nothook.so");
  EXPECT_EQ(Without("", "/lib/hook.so"), "");
  EXPECT_EQ(Without("::a.so::", "/lib/hook.so"), "a.so");
}

}  // namespace
}  // namespace postcopy::preload
