#include "core/memory_layout.h"

#include <limits>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

constexpr uint64_t kMiB = 1 << 20;

TEST(MemoryLayoutTest, SizeIsTheSumOfItsRegions) {
  EXPECT_EQ((MemoryLayout{{{"ram", 3 * kMiB}, {"vga", kMiB}}}).size_bytes(), 4 * kMiB);
}

TEST(MemoryLayoutTest, ContainsNeitherOverrunsNorWrapsAround) {
  const MemoryLayout layout{{{"ram", 10 * kPageBytes}}};
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  EXPECT_TRUE(layout.Contains({0}, {{0}, 10}));
  EXPECT_TRUE(layout.Contains({0}, {{9}, 1}));
  EXPECT_TRUE(layout.Contains({0}, {{10}, 0}));
  EXPECT_FALSE(layout.Contains({0}, {{0}, 11}));
  EXPECT_FALSE(layout.Contains({0}, {{10}, 1}));
  EXPECT_FALSE(layout.Contains({0}, {{11}, 0}));
  EXPECT_FALSE(layout.Contains({0}, {{9}, kMax}));
  EXPECT_FALSE(layout.Contains({0}, {{kMax}, 2}));
  EXPECT_FALSE(layout.Contains({1}, {{0}, 1}));
  EXPECT_FALSE(layout.Contains({0xffffffff}, {{0}, 1}));
}

TEST(MemoryLayoutTest, ValidOnesPass) {
  EXPECT_TRUE(Validate({{{"ram", kPageBytes}}}).ok());
  EXPECT_TRUE(Validate({{{std::string(255, 'x'), kMaxRegionBytes}}}).ok());
  MemoryLayout many;
  for (size_t i = 0; i < kMaxRegions; ++i) many.regions.push_back({std::to_string(i), kMiB});
  EXPECT_TRUE(Validate(many).ok());
}

TEST(MemoryLayoutTest, EachFaultOfALayoutIsRefusedWithItsCause) {
  MemoryLayout many;
  for (size_t i = 0; i <= kMaxRegions; ++i) many.regions.push_back({std::to_string(i), kMiB});
  const std::pair<MemoryLayout, const char*> refused[] = {
      {{}, "no region"},
      {many, "65 regions"},
      {{{{"", kMiB}}}, "name of 0 bytes"},
      {{{{std::string(256, 'x'), kMiB}}}, "name of 256 bytes"},
      {{{{"ram", kMiB}, {"ram", kMiB}}}, "two regions named ram"},
      {{{{"ram", 0}}}, "region ram has a size of 0"},
      {{{{"ram", kPageBytes + 1}}}, "region ram has a size of 4097"},
      {{{{"ram", kMaxRegionBytes + kPageBytes}}}, "region ram has a size"},
  };
  for (const auto& [layout, cause] : refused) {
    const auto result = Validate(layout);
    ASSERT_FALSE(result.ok()) << cause;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalidArgument);
    EXPECT_THAT(result.error().message, HasSubstr(cause));
  }
}

TEST(MemoryLayoutTest, SameShapeIgnoresTheOrder) {
  EXPECT_TRUE(CheckSameShape({{{"a", kMiB}, {"b", 2 * kMiB}}}, {{{"b", 2 * kMiB}, {"a", kMiB}}}).ok());
}

TEST(MemoryLayoutTest, EveryDifferenceIsNamed) {
  const auto result = CheckSameShape({{{"ram", kMiB}, {"vga", kMiB}, {"rom", kMiB}}},
                                     {{{"ram", 2 * kMiB}, {"rom", kMiB}, {"nvdimm", kMiB}}});
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kMismatch);
  EXPECT_THAT(result.error().message,
              HasSubstr("RAM block ram has 1048576 bytes at the source and 2097152"));
  EXPECT_THAT(result.error().message, HasSubstr("RAM block vga exists at the source only"));
  EXPECT_THAT(result.error().message, HasSubstr("RAM block nvdimm exists at the destination only"));
  EXPECT_THAT(result.error().message, testing::Not(HasSubstr("rom")));
}

}  // namespace
}  // namespace postcopy
