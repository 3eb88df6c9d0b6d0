#include "tests/lab/relay/delay_line.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace postcopy_lab {
namespace {

using namespace std::chrono_literals;

constexpr size_t kMax = DelayLine::kMaxPacketBytes;
constexpr DelayLine::Time kStart{1h};

// Puts in a packet of `size_bytes` bytes that are all `mark`; false: no room.
bool Put(DelayLine& line, size_t size_bytes, int mark, DelayLine::Time now = kStart) {
  const auto room = line.Room();
  if (room.empty()) return false;
  std::fill_n(room.begin(), size_bytes, static_cast<std::byte>(mark));
  line.Push(size_bytes, now);
  return true;
}

// Whether the oldest packet is that one; takes it out.
bool Take(DelayLine& line, size_t size_bytes, int mark) {
  const auto packet = line.Front();
  const bool same =
      packet.size() == size_bytes && std::all_of(packet.begin(), packet.end(), [&](std::byte each) {
        return each == static_cast<std::byte>(mark);
      });
  line.Pop();
  return same;
}

TEST(DelayLine, EachPacketIsDueTheDelayAfterItCame) {
  DelayLine line(5ms, 4 * kMax);
  EXPECT_EQ(line.next_due(), std::nullopt);
  EXPECT_TRUE(Put(line, 100, 1, kStart));
  EXPECT_TRUE(Put(line, 200, 2, kStart + 3ms));
  EXPECT_EQ(line.next_due(), kStart + 5ms);
  EXPECT_TRUE(Take(line, 100, 1));
  EXPECT_EQ(line.next_due(), kStart + 8ms);
  EXPECT_TRUE(Take(line, 200, 2));
  EXPECT_EQ(line.next_due(), std::nullopt);
}

TEST(DelayLine, HasNoRoomWhenFullAndAgainWhenTheOldestIsOut) {
  DelayLine line(1ms, 2 * kMax);
  EXPECT_TRUE(Put(line, kMax, 1));
  EXPECT_TRUE(Put(line, kMax, 2));
  EXPECT_EQ(line.held_bytes(), 2 * kMax);
  EXPECT_FALSE(Put(line, 1, 3));
  EXPECT_TRUE(Take(line, kMax, 1));
  EXPECT_TRUE(Put(line, kMax, 3));
  EXPECT_FALSE(Put(line, 1, 4));
  EXPECT_TRUE(Take(line, kMax, 2));
  EXPECT_TRUE(Take(line, kMax, 3));
  EXPECT_EQ(line.held_bytes(), 0u);
}

TEST(DelayLine, PacketsKeepTheirBytesHoweverOftenTheMemoryIsUsedAgain) {
  DelayLine line(1ms, 5 * kMax + 4321);
  int put = 0, taken = 0;
  const auto size_of = [](int number) { return 1 + static_cast<size_t>(number) * 7919 % kMax; };
  for (int round = 0; round < 300; ++round) {
    while (Put(line, size_of(put), put)) ++put;
    for (int i = 0; i <= round % 3; ++i, ++taken) ASSERT_TRUE(Take(line, size_of(taken), taken));
  }
  for (; taken < put; ++taken) ASSERT_TRUE(Take(line, size_of(taken), taken));
  EXPECT_GT(put, 500);
  EXPECT_EQ(line.next_due(), std::nullopt);
}

}  // namespace
}  // namespace postcopy_lab
