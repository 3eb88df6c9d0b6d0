#include "relocation/lost_hook.h"

#include <unistd.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

TEST(LostHookTest, AConfinedQemuIsNamedWithWhatHelps) {
  EXPECT_THAT(WhyHookIsAway({"qemu", "-chroot", "/var/jail", "-m", "64"}),
              HasSubstr("its root directory to /var/jail"));
  EXPECT_THAT(WhyHookIsAway({"qemu", "--chroot", "/var/jail"}), HasSubstr("below /var/jail"));
  EXPECT_THAT(WhyHookIsAway({"qemu", "-run-with", "async-teardown=on,chroot=/j"}), HasSubstr("to /j"));
  EXPECT_THAT(WhyHookIsAway({"qemu", "-runas", "nobody"}), HasSubstr("become user nobody"));
  EXPECT_THAT(WhyHookIsAway({"qemu", "-run-with", "user=nobody"}), HasSubstr("become user nobody"));
}

TEST(LostHookTest, AnOrdinaryQemuIsNot) {
  EXPECT_EQ(WhyHookIsAway({"qemu", "-m", "64", "-runas"}), "");
  EXPECT_EQ(WhyHookIsAway({"qemu", "-run-with", "async-teardown=on"}), "");
  EXPECT_EQ(WhyHookIsAway(std::vector<std::string>()), "");
  EXPECT_EQ(WhyHookIsAway(getpid()), "");
  EXPECT_EQ(WhyHookIsAway(0), "");
}

}  // namespace
}  // namespace postcopy
