#include "core/fetch_queue.h"

#include <map>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

constexpr TimePoint kStart{std::chrono::seconds(1)};

PageAddress Page(uint64_t page) { return {{0}, {page}}; }

TEST(FetchQueueTest, TakeReturnsWhatWasAddedAndEndsIt) {
  FetchQueue queue;
  const uint32_t id = queue.Add(Page(7), kStart);
  EXPECT_EQ(queue.size(), 1u);
  const auto fetch = queue.Take(id, Page(7));
  ASSERT_TRUE(fetch.has_value());
  EXPECT_EQ(fetch->page, Page(7));
  EXPECT_EQ(fetch->fault_time, kStart);
  EXPECT_EQ(queue.size(), 0u);
  EXPECT_FALSE(queue.Take(id, Page(7)).has_value());
}

TEST(FetchQueueTest, IdsThatWaitAreDistinct) {
  FetchQueue queue(2);
  std::map<uint32_t, uint64_t> pages;
  for (uint64_t page = 0; page < 100; ++page) pages[queue.Add(Page(page), kStart)] = page;
  EXPECT_EQ(pages.size(), 100u);
  queue.ForEach([&](uint32_t id, const Fetch& fetch) { EXPECT_EQ(fetch.page, Page(pages.at(id))); });
}

TEST(FetchQueueTest, PageThatCameAnotherWayEndsItsRequest) {
  FetchQueue queue;
  const uint32_t id = queue.Add(Page(7), kStart);
  queue.Add(Page(8), kStart);
  EXPECT_TRUE(queue.TakePage(Page(7)).has_value());
  EXPECT_FALSE(queue.TakePage(Page(7)).has_value());
  EXPECT_FALSE(queue.Take(id, Page(7)).has_value());
  EXPECT_EQ(queue.size(), 1u);
}

TEST(FetchQueueTest, LateAnswerDoesNotEndTheRequestThatReusedItsId) {
  FetchQueue queue;
  const uint32_t id = queue.Add(Page(7), kStart);
  queue.TakePage(Page(7));  // it came through the bulk; its answer is still on its way
  ASSERT_EQ(queue.Add(Page(8), kStart), id);
  EXPECT_FALSE(queue.Take(id, Page(7)).has_value());
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_TRUE(queue.Take(id, Page(8)).has_value());
}

TEST(FetchQueueTest, IdThatWasNeverGivenIsNothing) {
  FetchQueue queue;
  EXPECT_FALSE(queue.Take(0, Page(0)).has_value());
  EXPECT_FALSE(queue.Take(0xffffffff, Page(0)).has_value());
}

TEST(FetchQueueTest, ForEachVisitsExactlyWhatWaits) {
  FetchQueue queue;
  queue.Add(Page(1), kStart);
  const uint32_t taken = queue.Add(Page(2), kStart);
  queue.Add(Page(3), kStart);
  queue.Take(taken, Page(2));
  std::vector<uint64_t> pages;
  queue.ForEach([&](uint32_t, const Fetch& fetch) { pages.push_back(fetch.page.page.value); });
  EXPECT_EQ(pages, (std::vector<uint64_t>{1, 3}));
}

}  // namespace
}  // namespace postcopy
