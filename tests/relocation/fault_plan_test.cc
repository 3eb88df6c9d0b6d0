#include "relocation/fault_plan.h"

#include "gmock/gmock.h"

namespace postcopy {
namespace {

TEST(FaultPlanTest, EachFaultIsTakenWithItsValue) {
  const auto plan =
      FaultPlan::Parse({"corrupt-one-byte=7", "delay-bulk=3", "hold-at=resumed"}, "/run");
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->corrupt_after_pages(), 7u);
  EXPECT_EQ(plan->bulk_delay(), std::chrono::seconds(3));
}

TEST(FaultPlanTest, WithoutFaultsNothingIsDelayed) {
  const auto plan = FaultPlan::Parse({}, "/run");
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->corrupt_after_pages(), std::nullopt);
  EXPECT_EQ(plan->bulk_delay(), std::nullopt);
}

TEST(FaultPlanTest, WhatIsNoFaultIsNamed) {
  for (const char* fault : {"delay-bulk", "delay-bulk=", "delay-bulk=-1", "delay-bulk=x",
                            "hold-at=", "hold-at=nowhere", "corrupt-one-byte=x", ""}) {
    const auto plan = FaultPlan::Parse({fault}, "/run");
    ASSERT_FALSE(plan.ok()) << fault;
    EXPECT_THAT(std::string(plan.status().message()),
                testing::StartsWith(std::string("fault ") + fault + ": not "))
        << fault;
  }
}

}  // namespace
}  // namespace postcopy
