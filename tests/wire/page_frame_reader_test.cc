#include "wire/page_frame_reader.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>

#include "gmock/gmock.h"
#include "tests/wire/page_frames.h"

namespace postcopy::wire {
namespace {

using Outcome = PageFrameReader::Outcome;

// What a reader made of a stream, with pieces of one frame put together again, so that it does not
// depend on where the stream was cut.
struct Seen {
  std::vector<std::string> frames;
  bool malformed = false;
};

class Feeder {
 public:
  // Feeds `stream` in parts of the lengths that `next_length` returns.
  template <typename NextLength>
  Seen Feed(std::span<const std::byte> stream, NextLength next_length) {
    Seen seen;
    PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
    while (!stream.empty() && !seen.malformed) {
      const std::span<std::byte> space = reader.WritableSpace();
      EXPECT_FALSE(space.empty());
      const size_t length = std::min({std::max<size_t>(next_length(), 1), stream.size(), space.size()});
      std::memcpy(space.data(), stream.data(), length);
      reader.Commit(length);
      stream = stream.subspan(length);
      Drain(reader, seen);
    }
    return seen;
  }

 private:
  void Drain(PageFrameReader& reader, Seen& seen) {
    PageFrameReader::Item item;
    for (;;) {
      switch (reader.Next(item)) {
        case Outcome::kNeedMore: return;
        case Outcome::kMalformed: seen.malformed = true; return;
        case Outcome::kFrame:
          seen.frames.push_back("frame " + std::to_string(item.header.type) + " " + Text(item.bytes));
          break;
        case Outcome::kPiece: AddPiece(item, seen); break;
      }
    }
  }

  void AddPiece(const PageFrameReader::Item& item, Seen& seen) {
    EXPECT_EQ(item.bytes.size() % kPageBytes, 0u);
    if (static_cast<PageFrame>(item.header.type) == PageFrame::kPage) {
      seen.frames.push_back("page " + std::to_string(item.page.id) + " " +
                            std::to_string(item.page.page.page.value) + " " + Text(item.bytes));
      return;
    }
    const PageRange range = item.run.range;
    if (!item.bytes.empty()) {
      EXPECT_EQ(item.bytes.size(), range.size_bytes());
    }
    for (uint64_t i = 0; i < range.count_pages; ++i) {
      const auto page = item.bytes.empty() ? item.bytes : item.bytes.subspan(i * kPageBytes, kPageBytes);
      seen.frames.push_back("run " + std::to_string(item.run.region.value) + " " +
                            std::to_string(range.first.value + i) + " " + Text(page));
    }
  }

  static std::string Text(std::span<const std::byte> bytes) {
    return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
};

Bytes MixedStream() {
  Bytes stream = EncodeWelcome({1, {{{"ram", kPageBytes * 5000}}}});
  Append(stream, RawPage(7, {{0}, {1234}}));
  Append(stream, ZeroPage(8, {{0}, {5}}));
  Append(stream, EncodeMap({{0}, {{{0}, 10}, {{20}, 5}}, true}));
  Append(stream, RawRun({0}, {{64}, kMaxRunPages}, 3));
  Append(stream, ZeroRun({0}, {{128}, kMaxRunPages}));
  Append(stream, RawRun({1}, {{0}, 1}, 9));
  Append(stream, EncodeGoodbye());
  Append(stream, EncodeError(PageError::kNotNow, "later"));
  return stream;
}

Seen FeedWhole(const Bytes& stream) {
  return Feeder().Feed(stream, [] { return size_t{1} << 30; });
}

TEST(PageFrameReaderTest, MixedStreamIsReadInOrder) {
  const Seen seen = FeedWhole(MixedStream());
  EXPECT_FALSE(seen.malformed);
  ASSERT_EQ(seen.frames.size(), 1 + 1 + 1 + 1 + kMaxRunPages * 2 + 1 + 2);
  EXPECT_THAT(seen.frames[0], testing::StartsWith("frame 2 "));
  EXPECT_THAT(seen.frames[1], testing::StartsWith("page 7 1234 "));
  EXPECT_EQ(seen.frames[1].size(), std::string("page 7 1234 ").size() + kPageBytes);
  EXPECT_EQ(seen.frames[2], "page 8 5 ");
  EXPECT_THAT(seen.frames[4], testing::StartsWith("run 0 64 \x03"));
  EXPECT_THAT(seen.frames[5], testing::StartsWith("run 0 65 \x04"));
  EXPECT_EQ(seen.frames[4 + kMaxRunPages], "run 0 128 ");
  EXPECT_EQ(seen.frames[seen.frames.size() - 2], "frame 10 ");
}

TEST(PageFrameReaderTest, ByteByByteIsTheSameAsAtOnce) {
  const Bytes stream = MixedStream();
  EXPECT_EQ(Feeder().Feed(stream, [] { return size_t{1}; }).frames, FeedWhole(stream).frames);
}

TEST(PageFrameReaderTest, EveryRandomCutIsTheSameAsAtOnce) {
  const Bytes stream = MixedStream();
  const auto whole = FeedWhole(stream).frames;
  std::mt19937_64 random(5);
  for (int round = 0; round < 200; ++round) {
    const size_t longest = size_t{1} << (random() % 18);
    ASSERT_EQ(Feeder().Feed(stream, [&] { return random() % longest; }).frames, whole);
  }
}

TEST(PageFrameReaderTest, WholePagesOfARunAreHandedOutBeforeItsRestHasCome) {
  const Bytes run = RawRun({0}, {{0}, 3});
  PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
  const size_t part = kPageFrameBytes + kPageBytes * 2 + 100;
  std::memcpy(reader.WritableSpace().data(), run.data(), part);
  reader.Commit(part);
  PageFrameReader::Item item;
  ASSERT_EQ(reader.Next(item), Outcome::kPiece);
  EXPECT_EQ(item.run.range, (PageRange{{0}, 2}));
  EXPECT_EQ(reader.Next(item), Outcome::kNeedMore);
}

TEST(PageFrameReaderTest, FrameThatIsCutOffIsNeverHandedOut) {
  for (const Bytes& frame : {EncodeHello({}), ZeroPage(1, {{0}, {1}}), RawPage(1, {{0}, {1}}),
                             EncodeMap({{0}, {{{0}, 1}}, true}), EncodeGoodbye()}) {
    for (size_t length = 0; length < frame.size(); length += 1 + length / 50) {
      const Seen seen = FeedWhole({frame.begin(), frame.begin() + static_cast<ptrdiff_t>(length)});
      EXPECT_TRUE(seen.frames.empty());
      EXPECT_FALSE(seen.malformed);
    }
  }
}

struct MalformedCase {
  const char* name;
  Bytes frame;
};

TEST(PageFrameReaderTest, WhatTheDocumentForbidsIsMalformed) {
  const Bytes fields = Bytes(kPageFieldsBytes);
  const auto with_pages = [](uint32_t pages, uint64_t first = 0) {
    const auto head = EncodeRun({{0}, {{first}, pages}}, Encoding::kZero);
    return Bytes(head.begin() + kFrameHeaderBytes, head.end());
  };
  const uint32_t run_64 = kPageFieldsBytes + 64 * kPageBytes;
  const MalformedCase cases[] = {
      {"type 0", FrameOf(0, 0, 0, 0, {})},
      {"type 12", FrameOf(12, 0, 0, 0, {})},
      {"unreadable beyond its limit", FrameOf(11, 0, 0, kMaxSmallBodyBytes + 1, {})},
      {"unreadable with an encoding", FrameOf(11, 1, 0, kPageFieldsBytes, fields)},
      {"type 255", FrameOf(255, 0, 0, 0xffffffff, {})},
      {"goodbye with a body", FrameOf(10, 0, 0, 1, Bytes(1))},
      {"map request with a body", FrameOf(7, 0, 0, 4, Bytes(4))},
      {"request of 17 bytes", FrameOf(3, 0, 0, 17, Bytes(17))},
      {"hello beyond its limit", FrameOf(1, 0, 0, kMaxSmallBodyBytes + 1, {})},
      {"map beyond its limit", FrameOf(8, 0, 0, 8 + 16 * kMaxMapExtents + 1, {})},
      {"error of 4 GiB", FrameOf(9, 0, 0, 0xffffffff, {})},
      {"welcome of 4 GiB", FrameOf(2, 0, 0, 0xffffffff, {})},
      {"page of 4 GiB", FrameOf(4, 0, 0, 0xffffffff, fields)},
      {"page without its fields", FrameOf(4, 0, 0, 8, fields)},
      {"raw page without content", FrameOf(4, 0, 0, kPageFieldsBytes, fields)},
      {"raw page of 4095 bytes", FrameOf(4, 0, 0, kPageFieldsBytes + 4095, fields)},
      {"zero page with content", FrameOf(4, 1, 0, kPageFieldsBytes + kPageBytes, fields)},
      {"page in LZ4", FrameOf(4, 2, 0, kPageFieldsBytes + 100, fields)},
      {"page in an unknown encoding", FrameOf(4, 200, 0, kPageFieldsBytes, fields)},
      {"run of no pages", FrameOf(6, 1, 0, kPageFieldsBytes, with_pages(0))},
      {"run of 65 zero pages", FrameOf(6, 1, 0, kPageFieldsBytes, with_pages(65))},
      {"run of 65 pages", FrameOf(6, 0, 0, kPageFieldsBytes + 65 * kPageBytes, with_pages(65))},
      {"run of 2^32-1 zero pages", FrameOf(6, 1, 0, kPageFieldsBytes, with_pages(0xffffffff))},
      {"run of 64 pages that says 63", FrameOf(6, 0, 0, run_64, with_pages(63))},
      {"run at the end of the numbers", FrameOf(6, 1, 0, kPageFieldsBytes, with_pages(2, ~0ull))},
      {"request with an encoding", FrameOf(3, 1, 0, kPageFieldsBytes, fields)},
      {"hello with an encoding", FrameOf(1, 3, 0, 24, Bytes(24))},
      {"goodbye with an encoding", FrameOf(10, 1, 0, 0, {})},
      {"request with aux", FrameOf(3, 0, 1, 16, Bytes(16))},
      {"run with a checksum that version 1 does not have", FrameOf(6, 1, 0x8000, 16, Bytes(16))},
      {"map with an aux bit without meaning", FrameOf(8, 0, 0x0003, 8, Bytes(8))},
  };
  for (const MalformedCase& c : cases) {
    SCOPED_TRACE(c.name);
    const Seen seen = FeedWhole(c.frame);
    EXPECT_TRUE(seen.malformed);
    EXPECT_TRUE(seen.frames.empty());
    EXPECT_TRUE(Feeder().Feed(c.frame, [] { return size_t{1}; }).malformed);
  }
}

TEST(PageFrameReaderTest, GoodFramesBeforeAMalformedOneAreHandedOut) {
  Bytes stream = ZeroPage(3, {{0}, {4}});
  Append(stream, FrameOf(99, 0, 0, 0, {}));
  const Seen seen = FeedWhole(stream);
  EXPECT_EQ(seen.frames, (std::vector<std::string>{"page 3 4 "}));
  EXPECT_TRUE(seen.malformed);
}

TEST(PageFrameReaderTest, LongestFrameOfEveryTypeFitsTheSmallestBuffer) {
  for (int type = 1; type <= 10; ++type) {
    bool known = false;
    const auto frame_type = static_cast<PageFrame>(type);
    if (frame_type == PageFrame::kRun) continue;  // handed out page by page
    EXPECT_LE(kFrameHeaderBytes + MaxBodyBytes(static_cast<uint8_t>(type), known),
              PageFrameReader::kMinCapacityBytes);
  }
}

// Whatever comes: no crash, no read outside the buffer (ASan), always either room or an end, and
// never a page that the limits forbid.
TEST(PageFrameReaderTest, RandomGarbageNeverBreaksTheReader) {
  std::mt19937_64 random(17);
  for (int round = 0; round < 3000; ++round) {
    Bytes stream;
    const int frames = 1 + static_cast<int>(random() % 4);
    for (int i = 0; i < frames; ++i) {
      switch (random() % 4) {
        case 0: Append(stream, ZeroRun({0}, {{random() % 100}, 1 + random() % 64})); break;
        case 1: Append(stream, RawPage(1, {{0}, {2}})); break;
        case 2:
          Append(stream, FrameOf(static_cast<uint8_t>(random() % 12), random() % 3, 0,
                                 static_cast<uint32_t>(random() % 40), Bytes(random() % 40)));
          break;
        case 3: {
          Bytes noise(random() % 200);
          for (std::byte& b : noise) b = static_cast<std::byte>(random());
          Append(stream, noise);
          break;
        }
      }
    }
    if (random() % 2 == 0 && !stream.empty()) {
      stream[random() % stream.size()] ^= static_cast<std::byte>(1 << random() % 8);
    }
    PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
    std::span<const std::byte> left = stream;
    for (bool alive = true; alive && !left.empty();) {
      const auto space = reader.WritableSpace();
      ASSERT_FALSE(space.empty());
      const size_t length = std::min({1 + random() % 5000, left.size(), space.size()});
      std::memcpy(space.data(), left.data(), length);
      reader.Commit(length);
      left = left.subspan(length);
      PageFrameReader::Item item;
      for (bool more = true; more;) {
        switch (reader.Next(item)) {
          case Outcome::kNeedMore: more = false; break;
          case Outcome::kMalformed: more = alive = false; break;
          case Outcome::kFrame: ASSERT_LE(item.bytes.size(), size_t{80} << 10); break;
          case Outcome::kPiece:
            ASSERT_LE(item.bytes.size(), kMaxRunPages * kPageBytes);
            ASSERT_LE(item.run.range.count_pages, kMaxRunPages);
            break;
        }
      }
    }
  }
}

}  // namespace
}  // namespace postcopy::wire
