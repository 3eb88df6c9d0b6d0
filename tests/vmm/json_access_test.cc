#include "vmm/json_access.h"

#include <gtest/gtest.h>

namespace postcopy {
namespace {

std::string Nested(size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

TEST(JsonAccessTest, LevelsAreThoseOfTheDeepestPlace) {
  EXPECT_EQ(JsonLevels("1"), 0u);
  EXPECT_EQ(JsonLevels("[]"), 1u);
  EXPECT_EQ(JsonLevels(R"([{},{"a":[1]},[]])"), 3u);
}

TEST(JsonAccessTest, BracketsInTextAreNoLevels) {
  EXPECT_EQ(JsonLevels(R"(["[[[{{", "\"[[[", "\\"])"), 1u);
  EXPECT_EQ(JsonLevels(R"(["\\", [1]])"), 2u);
}

TEST(JsonAccessTest, WhatIsNestedTooDeepIsNoValue) {
  EXPECT_TRUE(ParseJson(Nested(kMaxJsonLevels)).is_array());
  EXPECT_TRUE(ParseJson(Nested(kMaxJsonLevels + 1)).is_discarded());
  EXPECT_TRUE(ParseJson("[").is_discarded());
}

}  // namespace
}  // namespace postcopy
