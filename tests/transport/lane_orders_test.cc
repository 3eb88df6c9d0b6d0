#include "transport/lane_orders.h"

#include <set>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

constexpr RegionId kRam{0};

TEST(LaneOrdersTest, ARequestIsAnsweredOnceByItsNumberAndPage) {
  LaneOrders orders;
  const PageAddress page{kRam, {5}};
  const uint32_t number = orders.AddRequest(77, page);
  EXPECT_FALSE(orders.TakeRequest(number, {kRam, {6}}).has_value());
  EXPECT_FALSE(orders.TakeRequest(number + 1, page).has_value());
  EXPECT_FALSE(orders.TakeRequest(~uint32_t{0}, page).has_value());
  EXPECT_EQ(orders.TakeRequest(number, page), 77u);
  EXPECT_FALSE(orders.TakeRequest(number, page).has_value());
}

// As the parts of huge pages, which all have the id of nobody, and a page that is requested again
// under an id that another page had.
TEST(LaneOrdersTest, RequestsOfOneIdHaveNumbersOfTheirOwn) {
  LaneOrders orders;
  std::set<uint32_t> numbers;
  for (uint64_t page = 0; page < 1000; ++page) {
    numbers.insert(orders.AddRequest(7, {kRam, {page % 3}}));
  }
  EXPECT_EQ(numbers.size(), 1000u);
  uint64_t page = 0;
  for (const uint32_t number : numbers) {
    EXPECT_TRUE(orders.TakeRequest(number, {kRam, {page++ % 3}}).has_value());
  }
  EXPECT_LT(orders.AddRequest(7, {kRam, {0}}), 1000u) << "numbers are used again";
}

TEST(LaneOrdersTest, GrantsAreAnsweredInOrderAndToTheirEndOnly) {
  LaneOrders orders;
  EXPECT_FALSE(orders.TakeGranted(kRam, {{0}, 1}));
  EXPECT_TRUE(orders.AddGrant(kRam, {{10}, 4}));
  EXPECT_TRUE(orders.AddGrant(kRam, {{14}, 4}));
  EXPECT_FALSE(orders.TakeGranted(kRam, {{14}, 4}));
  EXPECT_FALSE(orders.TakeGranted(kRam, {{10}, 5}));
  EXPECT_FALSE(orders.TakeGranted({1}, {{10}, 4}));
  EXPECT_TRUE(orders.TakeGranted(kRam, {{10}, 3}));
  EXPECT_FALSE(orders.TakeGranted(kRam, {{10}, 1}));
  EXPECT_TRUE(orders.TakeGranted(kRam, {{13}, 1}));
  EXPECT_TRUE(orders.TakeGranted(kRam, {{14}, 4}));
  EXPECT_FALSE(orders.TakeGranted(kRam, {{18}, 1}));
}

TEST(LaneOrdersTest, NoMoreGrantsThanMayBeAreOut) {
  LaneOrders orders;
  for (size_t i = 0; i < PageTransport::kMostGrants; ++i) {
    EXPECT_TRUE(orders.AddGrant(kRam, {{i}, 1}));
  }
  EXPECT_FALSE(orders.AddGrant(kRam, {{500}, 1}));
  EXPECT_TRUE(orders.TakeGranted(kRam, {{0}, 1}));
  EXPECT_TRUE(orders.AddGrant(kRam, {{500}, 1}));
  for (size_t i = 1; i < PageTransport::kMostGrants; ++i) {
    EXPECT_TRUE(orders.TakeGranted(kRam, {{i}, 1}));
  }
  EXPECT_TRUE(orders.TakeGranted(kRam, {{500}, 1}));
}

TEST(LaneOrdersTest, TheMapComesOnceInOrderUpToItsEnd) {
  LaneOrders orders;
  EXPECT_FALSE(orders.TakeMap({kRam, {}, true}));
  EXPECT_TRUE(orders.AddMap());
  EXPECT_FALSE(orders.AddMap());
  EXPECT_TRUE(orders.TakeMap({kRam, {}, false}));  // a sign of life
  EXPECT_TRUE(orders.TakeMap({kRam, {{{5}, 5}}, false}));
  EXPECT_FALSE(orders.TakeMap({kRam, {{{9}, 1}}, false}));
  EXPECT_TRUE(orders.TakeMap({{1}, {{{0}, 1}}, false}));
  EXPECT_FALSE(orders.TakeMap({kRam, {{{20}, 1}}, false}));
  EXPECT_TRUE(orders.TakeMap({{1}, {}, true}));
  EXPECT_FALSE(orders.TakeMap({{1}, {}, true}));
}

TEST(LaneOrdersTest, OfALaneThatHasEndedNothingIsOpen) {
  LaneOrders orders;
  const uint32_t number = orders.AddRequest(7, {kRam, {5}});
  orders.AddGrant(kRam, {{0}, 4});
  orders.AddMap();
  orders.Clear();
  EXPECT_FALSE(orders.TakeRequest(number, {kRam, {5}}).has_value());
  EXPECT_FALSE(orders.TakeGranted(kRam, {{0}, 4}));
  EXPECT_FALSE(orders.TakeMap({kRam, {}, true}));
  EXPECT_TRUE(orders.AddMap());
}

}  // namespace
}  // namespace postcopy
