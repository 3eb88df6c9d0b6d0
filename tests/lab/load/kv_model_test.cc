#include "tests/lab/load/kv_model.h"

#include <gtest/gtest.h>

namespace postcopy_lab {
namespace {

TEST(KvModel, HasTheAskedMemoryInValuesOfOneToFourKiB) {
  const KvModel model(7, 16);
  size_t bytes = 0;
  for (uint32_t key = 0; key < model.keys(); ++key) {
    EXPECT_GE(model.ValueBytes(key), 1024u);
    EXPECT_LE(model.ValueBytes(key), 4096u);
    bytes += model.ValueBytes(key);
  }
  EXPECT_NEAR(static_cast<double>(bytes), 16 << 20, 16 << 15);
}

TEST(KvModel, TakesTheValueOfAKeyAndVersionForNoOther) {
  KvModel model(7, 1);
  EXPECT_EQ(model.Judge(3, 0, model.Value(3, 0)), "");
  EXPECT_NE(model.Judge(4, 0, model.Value(3, 0)), "");
  EXPECT_NE(KvModel(8, 1).Judge(3, 0, model.Value(3, 0)), "");
  std::string value = model.Value(3, 0);
  value.back() ^= 1;
  EXPECT_EQ(model.Judge(3, 0, value),
            "wrong byte at offset " + std::to_string(value.size() - 1) + " of version 0");
  value.pop_back();
  EXPECT_NE(model.Judge(3, 0, value), "");
}

TEST(KvModel, AGetMaySeeTheSetThatWasOnItsWayAndNothingOlderThanWhatWasStored) {
  KvModel model(7, 1);
  EXPECT_EQ(model.BeginSet(3), 1u);
  EXPECT_TRUE(model.SetOnTheWay(3));
  const uint64_t before = model.OldestVisible(3);
  EXPECT_EQ(model.Judge(3, before, model.Value(3, 0)), "");
  EXPECT_EQ(model.Judge(3, before, model.Value(3, 1)), "");
  EXPECT_EQ(model.Judge(3, before, model.Value(3, 2)), "version 2, not 0 to 1");
  model.EndSet(3, true);
  EXPECT_EQ(model.Judge(3, before, model.Value(3, 0)), "");  // it was sent before
  EXPECT_EQ(model.Judge(3, model.OldestVisible(3), model.Value(3, 0)), "version 0, not 1 to 1");
}

TEST(KvModel, ASetOfUnknownOutcomeMayBeSeenOrNot) {
  KvModel model(7, 1);
  model.BeginSet(3);
  model.EndSet(3, false);
  EXPECT_FALSE(model.SetOnTheWay(3));
  EXPECT_EQ(model.Judge(3, model.OldestVisible(3), model.Value(3, 0)), "");
  EXPECT_EQ(model.Judge(3, model.OldestVisible(3), model.Value(3, 1)), "");
}

}  // namespace
}  // namespace postcopy_lab
