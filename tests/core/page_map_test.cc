#include "core/page_map.h"

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

using State = PageState;

constexpr PageAddress kPage{{0}, {5}};

MemoryLayout Pages(uint64_t count) { return {{{"ram", count * kPageBytes}}}; }

// A map of ten pages whose page kPage is in `state`.
std::unique_ptr<PageMap> MapWith(State state) {
  auto map = std::make_unique<PageMap>(Pages(10));
  switch (state) {
    case State::kMissing: break;
    case State::kFilling: map->Claim(kPage); break;
    case State::kPresent:
      map->Claim(kPage);
      map->Finish(kPage, true);
      break;
    case State::kDiscarded: map->Discard({0}, {kPage.page, 1}); break;
    case State::kWritten:
      map->Claim(kPage);
      map->MarkWritten(kPage);
      break;
    case State::kPoisoned:
      map->Poison(kPage);
      break;
  }
  return map;
}

struct Step {
  std::string name;
  std::function<void(PageMap&)> apply;
  // By state before: missing, filling, present, discarded, written, poisoned. Nothing: the contract
  // forbids it there.
  std::optional<State> after[6];
};

const State kStates[] = {State::kMissing,   State::kFilling, State::kPresent,
                         State::kDiscarded, State::kWritten, State::kPoisoned};

const std::vector<Step>& Steps() {
  constexpr auto M = State::kMissing, F = State::kFilling, P = State::kPresent,
                 D = State::kDiscarded, W = State::kWritten, X = State::kPoisoned;
  constexpr std::nullopt_t no = std::nullopt;
  const PageRange one{kPage.page, 1};
  static const std::vector<Step> steps = {
      {"Claim", [](PageMap& map) { map.Claim(kPage); }, {F, F, P, D, W, X}},
      {"MarkWritten", [](PageMap& map) { map.MarkWritten(kPage); }, {no, W, no, no, no, no}},
      {"Finish here", [](PageMap& map) { map.Finish(kPage, true); }, {no, P, no, no, P, no}},
      {"Finish gone", [](PageMap& map) { map.Finish(kPage, false); }, {no, D, no, no, D, no}},
      {"Unclaim", [](PageMap& map) { map.Unclaim(kPage); }, {no, M, no, no, M, no}},
      {"Poison", [](PageMap& map) { map.Poison(kPage); }, {X, X, P, D, W, X}},
      {"Restore", [](PageMap& map) { map.Restore(kPage); }, {M, F, P, D, W, P}},
      {"Discard", [one](PageMap& map) { map.Discard({0}, one); }, {D, F, D, D, W, X}},
      {"MarkEmpty", [one](PageMap& map) { map.MarkEmpty({0}, one); }, {D, F, P, D, W, X}},
      {"PresentAsZero", [](PageMap& map) { map.PresentAsZero(kPage); }, {M, F, P, P, W, X}},
      {"MarkDemanded", [](PageMap& map) { map.MarkDemanded(kPage); }, {M, F, P, D, W, X}},
      {"MarkAllocated", [one](PageMap& map) { map.MarkAllocated({0}, one); }, {M, F, P, D, W, X}},
      {"TakeUngranted",
       [](PageMap& map) { map.TakeUngranted({0}, kPage.page, kPage.page + 1, 1); },
       {M, F, P, D, W, X}},
      {"ForgetGrants", [](PageMap& map) { map.ForgetGrants(); }, {M, F, P, D, W, X}},
      {"Recover",
       [](PageMap& map) { map.Recover(std::array<uint64_t, 1>{1}); },
       {M, M, P, D, P, X}},
  };
  return steps;
}

bool IsOutstanding(State state) {
  return state == State::kMissing || state == State::kFilling || state == State::kWritten ||
         state == State::kPoisoned;
}

TEST(PageMapTest, EveryStepFromEveryStateLeadsWhereTheTableSays) {
  for (const Step& step : Steps()) {
    for (size_t i = 0; i < std::size(kStates); ++i) {
      if (!step.after[i].has_value()) continue;
      SCOPED_TRACE(step.name + " from state " + std::to_string(i));
      const auto map = MapWith(kStates[i]);
      step.apply(*map);
      EXPECT_EQ(map->StateOf(kPage), *step.after[i]);
      // Outstanding is what is missing, being filled or poisoned, at any time; the other nine are
      // missing.
      EXPECT_EQ(map->outstanding_pages(), 9u + (IsOutstanding(*step.after[i]) ? 1 : 0));
    }
  }
}

TEST(PageMapTest, NoStepTouchesTheNeighbours) {
  for (const Step& step : Steps()) {
    for (size_t i = 0; i < std::size(kStates); ++i) {
      if (!step.after[i].has_value()) continue;
      const auto map = MapWith(kStates[i]);
      step.apply(*map);
      EXPECT_EQ(map->StateOf({{0}, {4}}), State::kMissing) << step.name;
      EXPECT_EQ(map->StateOf({{0}, {6}}), State::kMissing) << step.name;
    }
  }
}

TEST(PageMapTest, OnlyAMissingPageCanBeClaimed) {
  for (const State state : kStates) {
    EXPECT_EQ(MapWith(state)->Claim(kPage), state == State::kMissing);
  }
}

TEST(PageMapTest, MarksSurviveEveryStateChangeUntilTheFillEnds) {
  PageMap map(Pages(10));
  map.MarkAllocated({0}, {kPage.page, 1});
  EXPECT_EQ(map.MarkDemanded(kPage), PageMap::Demand::kAskSource);
  ASSERT_TRUE(map.Claim(kPage));
  map.Unclaim(kPage);
  EXPECT_EQ(map.MarkDemanded(kPage), PageMap::Demand::kOnItsWay);
  ASSERT_TRUE(map.Claim(kPage));
  const auto finished = map.Finish(kPage, true);
  EXPECT_TRUE(finished.demanded);
  EXPECT_FALSE(finished.waited);
  EXPECT_TRUE(map.IsAllocated(kPage));
}

TEST(PageMapTest, DemandIsAskedForOnceAndAnsweredByState) {
  EXPECT_EQ(MapWith(State::kMissing)->MarkDemanded(kPage), PageMap::Demand::kAskSource);
  EXPECT_EQ(MapWith(State::kFilling)->MarkDemanded(kPage), PageMap::Demand::kOnItsWay);
  EXPECT_EQ(MapWith(State::kPresent)->MarkDemanded(kPage), PageMap::Demand::kMapHere);
  EXPECT_EQ(MapWith(State::kDiscarded)->MarkDemanded(kPage), PageMap::Demand::kMapHere);
}

TEST(PageMapTest, FaultDuringAFillIsToldToTheFillerAndNotCounted) {
  const auto map = MapWith(State::kFilling);
  map->MarkDemanded(kPage);
  const auto finished = map->Finish(kPage, true);
  EXPECT_TRUE(finished.waited);
  EXPECT_FALSE(finished.demanded);
}

TEST(PageMapTest, FinishForgetsWhoWaited) {
  PageMap map(Pages(10));
  map.MarkDemanded(kPage);
  map.Claim(kPage);
  map.MarkDemanded(kPage);
  map.Finish(kPage, false);
  map.PresentAsZero(kPage);
  EXPECT_EQ(map.MarkDemanded(kPage), PageMap::Demand::kMapHere);
}

TEST(PageMapTest, PoisonedPagesAreCountedAndNeverComplete) {
  PageMap map(Pages(2));
  map.Claim({{0}, {1}});
  EXPECT_TRUE(map.Poison({{0}, {0}}));
  EXPECT_TRUE(map.Poison({{0}, {1}}));
  EXPECT_FALSE(map.Poison({{0}, {1}})) << "before";
  EXPECT_EQ(map.poisoned_pages(), 2u);
  EXPECT_EQ(map.outstanding_pages(), 2u);
  EXPECT_EQ(map.MarkDemanded({{0}, {0}}), PageMap::Demand::kOnItsWay);
  map.Restore({{0}, {0}});
  EXPECT_EQ(map.poisoned_pages(), 1u);
  EXPECT_EQ(map.outstanding_pages(), 1u);
}

TEST(PageMapTest, DiscardOfARangeCountsEachPageOnce) {
  PageMap map(Pages(10));
  map.Claim({{0}, {1}});
  map.Claim({{0}, {2}});
  map.Finish({{0}, {2}}, true);
  map.Discard({0}, {{0}, 4});
  EXPECT_EQ(map.outstanding_pages(), 7u);  // page 1, being filled, and six missing ones
  EXPECT_EQ(map.discarded_pages(), 4u);
  map.Discard({0}, {{0}, 4});
  EXPECT_EQ(map.outstanding_pages(), 7u);
}

TEST(PageMapTest, TakeUngrantedSkipsWhatNeedsNoGrant) {
  PageMap map(Pages(10));
  map.Claim({{0}, {0}});                    // filling
  map.MarkDemanded({{0}, {1}});             // asked for by demand
  map.Discard({0}, {{2}, 1});               // given up
  map.TakeUngranted({0}, {3}, {4}, 1);      // granted
  map.MarkDemanded({{0}, {7}});
  EXPECT_EQ(map.TakeUngranted({0}, {0}, {10}, 64), (PageRange{{4}, 3}));
  EXPECT_EQ(map.TakeUngranted({0}, {0}, {10}, 2), (PageRange{{8}, 2}));
  EXPECT_TRUE(map.TakeUngranted({0}, {0}, {10}, 64).empty());
}

TEST(PageMapTest, ForgottenGrantsOfMissingPagesCanBeTakenAgain) {
  PageMap map(Pages(10));
  EXPECT_EQ(map.TakeUngranted({0}, {0}, {10}, 10).count_pages, 10u);
  map.Claim({{0}, {0}});
  map.Finish({{0}, {0}}, true);
  map.ForgetGrants();
  EXPECT_EQ(map.TakeUngranted({0}, {0}, {10}, 10), (PageRange{{1}, 9}));
}

TEST(PageMapTest, RegionsAreSeparate) {
  PageMap map({{{"a", 2 * kPageBytes}, {"b", 3 * kPageBytes}}});
  EXPECT_EQ(map.count_regions(), 2u);
  EXPECT_EQ(map.region_pages({1}), 3u);
  EXPECT_EQ(map.outstanding_pages(), 5u);
  map.Discard({1}, {{0}, 3});
  EXPECT_EQ(map.StateOf({{0}, {1}}), State::kMissing);
  EXPECT_EQ(map.outstanding_pages(), 2u);
}

TEST(PageMapTest, OfTwoThreadsThatClaimExactlyOneWinsEachPage) {
  constexpr uint64_t kPages = 20000;
  PageMap map(Pages(kPages));
  std::vector<uint8_t> won[2] = {std::vector<uint8_t>(kPages), std::vector<uint8_t>(kPages)};
  const auto fill = [&](int who) {
    for (uint64_t page = 0; page < kPages; ++page) {
      won[who][page] = map.Claim({{0}, {page}});
      if (won[who][page]) map.Finish({{0}, {page}}, true);
    }
  };
  std::thread other(fill, 1);
  fill(0);
  other.join();
  for (uint64_t page = 0; page < kPages; ++page) ASSERT_EQ(won[0][page] + won[1][page], 1);
  EXPECT_EQ(map.outstanding_pages(), 0u);
}

TEST(PageMapTest, CountsAgreeWhenTheGuestDiscardsWhileTwoThreadsFill) {
  constexpr uint64_t kPages = 20000;
  PageMap map(Pages(kPages));
  const auto fill = [&](uint64_t start) {
    for (uint64_t i = 0; i < kPages; ++i) {
      const PageAddress page{{0}, {(start + i) % kPages}};
      if (map.Claim(page)) map.Finish(page, i % 7 != 0);
    }
  };
  std::thread first(fill, 0);
  std::thread second(fill, kPages / 2);
  for (uint64_t page = 0; page < kPages; page += 2) map.Discard({0}, {{page}, 1});
  first.join();
  second.join();
  EXPECT_EQ(map.outstanding_pages(), 0u);
  for (uint64_t page = 0; page < kPages; ++page) {
    const State state = map.StateOf({{0}, {page}});
    ASSERT_TRUE(state == State::kPresent || state == State::kDiscarded);
  }
}

TEST(PageMapTest, AnotherMapOverTheSameBytesFindsWhatWasHere) {
  std::vector<std::atomic<uint8_t>> bytes(10);
  const auto at = [](uint64_t page) { return PageAddress{{0}, {page}}; };
  {
    PageMap before(Pages(10), bytes);
    before.MarkAllocated({0}, {{0}, 10});
    before.Claim(at(1));  // its filler has ended
    before.Claim(at(2));
    before.MarkWritten(at(2));  // perhaps mapped
    before.Claim(at(3));
    before.Finish(at(3), true);
    before.Discard({0}, {{4}, 1});
    before.MarkDemanded(at(5));
    before.TakeUngranted({0}, {6}, {7}, 1);
    before.Poison(at(0));
  }
  PageMap map(Pages(10), bytes);
  map.Recover(std::array<uint64_t, 1>{1});
  EXPECT_EQ(map.outstanding_pages(), 7u);
  EXPECT_EQ(map.poisoned_pages(), 1u);
  EXPECT_EQ(map.StateOf(at(0)), State::kPoisoned);
  EXPECT_EQ(map.StateOf(at(1)), State::kMissing);
  EXPECT_EQ(map.StateOf(at(2)), State::kPresent);
  EXPECT_EQ(map.StateOf(at(3)), State::kPresent);
  EXPECT_EQ(map.StateOf(at(4)), State::kDiscarded);
  EXPECT_TRUE(map.IsAllocated(at(5)));
  EXPECT_EQ(map.MarkDemanded(at(5)), PageMap::Demand::kAskSource) << "nobody has asked since";
  EXPECT_EQ(map.TakeUngranted({0}, {6}, {10}, 10), (PageRange{{6}, 4}));
}

TEST(PageMapTest, OfPagesThatAreMappedTogetherAllAreMissingUnlessAllAreHere) {
  std::vector<std::atomic<uint8_t>> bytes(12);
  PageMap before(Pages(12), bytes);
  for (uint64_t page = 0; page < 12; ++page) {
    if (page == 5) continue;  // its filler ended just before
    before.Claim({{0}, {page}});
    before.Finish({{0}, {page}}, true);
  }
  PageMap map(Pages(12), bytes);
  map.Recover(std::array<uint64_t, 1>{4});
  EXPECT_EQ(map.outstanding_pages(), 4u);
  EXPECT_EQ(map.StateOf({{0}, {3}}), State::kPresent);
  EXPECT_EQ(map.StateOf({{0}, {4}}), State::kMissing);
  EXPECT_EQ(map.StateOf({{0}, {8}}), State::kPresent);
}

TEST(PageMapTest, BytesThatNoMapWritesCountAsMissing) {
  std::vector<std::atomic<uint8_t>> bytes(256);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i);
  PageMap map(Pages(256), bytes);
  map.Recover(std::array<uint64_t, 1>{1});
  for (uint64_t page = 0; page < 256; ++page) {
    const State state = map.StateOf({{0}, {page}});
    EXPECT_TRUE(state == State::kMissing || state == State::kPresent ||
                state == State::kDiscarded || state == State::kPoisoned);
    EXPECT_EQ(map.Claim({{0}, {page}}), state == State::kMissing);
  }
}

}  // namespace
}  // namespace postcopy
