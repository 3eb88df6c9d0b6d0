#include "vmm/qemu_settings.h"

#include <gtest/gtest.h>

namespace postcopy {
namespace {

Json Capability(const char* name, bool state) {
  return Json{{"capability", name}, {"state", state}};
}

const Json kParameters = {{"max-bandwidth", 134217728}, {"downtime-limit", 300},
                          {"tls-creds", ""}, {"announce-initial", 50}};

TEST(QemuSettingsTest, SourceChangesWhatDiffersAndCanPutItBack) {
  const Json capabilities = Json::array(
      {Capability("events", true), Capability("x-ignore-shared", false),
       Capability("pause-before-switchover", false), Capability("multifd", true),
       Capability("return-path", false), Capability("validate-uuid", true)});
  const auto plan = PlanSourceSettings(capabilities, kParameters);
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->apply.capabilities,
            Json::array({Capability("x-ignore-shared", true),
                         Capability("pause-before-switchover", true),
                         Capability("multifd", false)}));
  EXPECT_EQ(plan->restore.capabilities,
            Json::array({Capability("x-ignore-shared", false),
                         Capability("pause-before-switchover", false),
                         Capability("multifd", true)}));
  EXPECT_EQ(plan->restore.parameters,
            Json({{"max-bandwidth", 134217728}, {"downtime-limit", 300}}));
  EXPECT_EQ(plan->apply.parameters.size(), 2u);
}

TEST(QemuSettingsTest, WhatIsToBeMovedStaysAsItsOwnerHasSetIt) {
  for (const bool on : {false, true}) {
    const Json capabilities = Json::array(
        {Capability("events", true), Capability("x-ignore-shared", true),
         Capability("pause-before-switchover", true), Capability("late-block-activate", true),
         Capability("dirty-bitmaps", on)});
    for (const auto& plan : {PlanSourceSettings(capabilities, Json::object()),
                             PlanDestinationSettings(capabilities, Json::object())}) {
      ASSERT_TRUE(plan.ok()) << plan.status();
      EXPECT_TRUE(plan->apply.capabilities.empty()) << plan->apply.capabilities;
    }
  }
}

TEST(QemuSettingsTest, WithoutARelocationWhatItSetsIsOff) {
  const Json capabilities = Json::array(
      {Capability("events", true), Capability("x-ignore-shared", true),
       Capability("pause-before-switchover", true), Capability("late-block-activate", false),
       Capability("multifd", true)});
  const auto plan = PlanNoRelocation(
      capabilities, {{"max-bandwidth", int64_t{10} << 30}, {"downtime-limit", 500}});
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->apply.capabilities, Json::array({Capability("x-ignore-shared", false),
                                                   Capability("pause-before-switchover", false)}));
  EXPECT_EQ(plan->apply.parameters, Json({{"max-bandwidth", 134217728}}));
  EXPECT_TRUE(plan->restore.capabilities.empty());
}

TEST(QemuSettingsTest, DestinationTurnsLateBlockActivateOn) {
  const Json capabilities = Json::array(
      {Capability("events", true), Capability("x-ignore-shared", true),
       Capability("late-block-activate", false), Capability("pause-before-switchover", false)});
  const auto plan = PlanDestinationSettings(capabilities, {{"tls-creds", "tls0"}});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->apply.capabilities, Json::array({Capability("late-block-activate", true)}));
  EXPECT_EQ(plan->apply.parameters, Json({{"tls-creds", ""}}));
  EXPECT_EQ(plan->restore.parameters, Json({{"tls-creds", "tls0"}}));
}

TEST(QemuSettingsTest, MissingCapabilityIsNamed) {
  const Json capabilities = Json::array({Capability("events", false)});
  const auto plan = PlanSourceSettings(capabilities, kParameters);
  EXPECT_EQ(plan.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(plan.status().message(), "this QEMU has no migration capability x-ignore-shared");
}

TEST(QemuSettingsTest, OneCapabilityListedTwiceStandsForNoOther) {
  const Json capabilities = Json::array({Capability("events", false), Capability("events", false),
                                         Capability("x-ignore-shared", false)});
  EXPECT_EQ(PlanSourceSettings(capabilities, kParameters).status().message(),
            "this QEMU has no migration capability pause-before-switchover");
}

TEST(QemuSettingsTest, AnswersOfAnotherFormAreRefused) {
  EXPECT_FALSE(PlanSourceSettings(Json(), Json()).ok());
  EXPECT_FALSE(PlanSourceSettings(Json("text"), Json(1)).ok());
  EXPECT_FALSE(PlanSourceSettings(Json::array({1, "x", nullptr}), Json::array()).ok());
}

}  // namespace
}  // namespace postcopy
