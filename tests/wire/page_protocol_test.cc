#include "wire/page_protocol.h"

#include <limits>
#include <random>

#include "gmock/gmock.h"
#include "tests/wire/page_frames.h"

namespace postcopy::wire {
namespace {

constexpr uint64_t kMaxU64 = std::numeric_limits<uint64_t>::max();

Bytes Body(const Bytes& frame) { return {frame.begin() + kFrameHeaderBytes, frame.end()}; }

TEST(PageProtocolTest, HelloComesBackAsItWent) {
  for (const Lane lane : {Lane::kUrgent, Lane::kBulk}) {
    Hello hello{0xabcd, lane, {}};
    hello.session.bytes[15] = std::byte{9};
    const auto back = DecodeHello(BodyOf(EncodeHello(hello)));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->version, 0xabcd);
    EXPECT_EQ(back->lane, lane);
    EXPECT_EQ(back->session, hello.session);
  }
}

TEST(PageProtocolTest, HelloWithAWrongFieldIsRefused) {
  const Bytes good = Body(EncodeHello({}));
  for (const size_t at : {0u, 3u, 6u}) {  // magic, magic, lane
    Bytes bad = good;
    bad[at] = std::byte{0x77};
    EXPECT_FALSE(DecodeHello(bad).ok()) << at;
  }
}

TEST(PageProtocolTest, WelcomeComesBackAsItWent) {
  Welcome welcome{1, {}};
  for (size_t i = 0; i < kMaxRegions; ++i) {
    welcome.layout.regions.push_back(
        {std::string(kMaxRegionNameBytes - 1, 'x') + static_cast<char>('0' + i),
         (i + 1) * kPageBytes});
  }
  const Bytes frame = EncodeWelcome(welcome);
  bool known = false;
  EXPECT_LE(HeaderOf(frame).length, MaxBodyBytes(2, known));
  const auto back = DecodeWelcome(BodyOf(frame));
  ASSERT_TRUE(back.ok());
  EXPECT_EQ(back->layout.regions, welcome.layout.regions);
}

TEST(PageProtocolTest, WelcomeWithAnImpossibleLayoutIsRefused) {
  const MemoryLayout impossible[] = {
      {},
      {{{"ram", 0}}},
      {{{"ram", kPageBytes + 1}}},
      {{{"ram", kMaxRegionBytes * 2}}},
      {{{"", kPageBytes}}},
      {{{"a", kPageBytes}, {"a", kPageBytes}}},
      {std::vector<Region>(kMaxRegions + 1, {"ram", kPageBytes})},
      {{{std::string(kMaxRegionNameBytes + 1, 'x'), kPageBytes}}},
  };
  for (const MemoryLayout& layout : impossible) {
    EXPECT_FALSE(DecodeWelcome(BodyOf(EncodeWelcome({1, layout}))).ok());
  }
}

TEST(PageProtocolTest, WelcomeThatPromisesMoreRegionsThanItHasIsRefused) {
  Bytes body = Body(EncodeWelcome({1, {{{"ram", kPageBytes}}}}));
  body[2] = std::byte{2};
  EXPECT_FALSE(DecodeWelcome(body).ok());
}

TEST(PageProtocolTest, PageFieldsComeBackAsTheyWent) {
  const PageFields fields{0xfedcba98, {{0x1234}, {kMaxU64 - 5}}};
  for (const auto& head : {EncodeRequest(fields), EncodePage(fields, Encoding::kRaw),
                           EncodePage(fields, Encoding::kZero)}) {
    const auto back = DecodePageFields(std::span(head).subspan(kFrameHeaderBytes));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->id, fields.id);
    EXPECT_EQ(back->page, fields.page);
  }
  EXPECT_EQ(DecodeFrameHeader(EncodePage(fields, Encoding::kRaw).data()),
            (FrameHeader{4, 0, 0, kPageFieldsBytes + kPageBytes}));
  EXPECT_EQ(DecodeFrameHeader(EncodePage(fields, Encoding::kZero).data()),
            (FrameHeader{4, 1, 0, kPageFieldsBytes}));
}

TEST(PageProtocolTest, RangeFieldsComeBackAsTheyWent) {
  const RangeFields fields{{3}, {{0x123456789a}, kMaxRunPages}};
  for (const auto& head : {EncodeGrant(fields), EncodeRun(fields, Encoding::kRaw),
                           EncodeRun(fields, Encoding::kZero)}) {
    const auto back = DecodeRangeFields(std::span(head).subspan(kFrameHeaderBytes));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->region, fields.region);
    EXPECT_EQ(back->range, fields.range);
  }
  EXPECT_EQ(DecodeFrameHeader(EncodeRun(fields, Encoding::kRaw).data()).length,
            kPageFieldsBytes + kMaxRunPages * kPageBytes);
}

TEST(PageProtocolTest, RangeOfNoPagesIsRefused) {
  const auto head = EncodeGrant({{0}, {{5}, 0}});
  EXPECT_FALSE(DecodeRangeFields(std::span(head).subspan(kFrameHeaderBytes)).ok());
}

TEST(PageProtocolTest, MapComesBackAsItWent) {
  for (const bool last : {false, true}) {
    MapFields map{{2}, {}, last};
    for (uint64_t i = 0; i < kMaxMapExtents; ++i) map.extents.push_back({{3 * i}, 2});
    const Bytes frame = EncodeMap(map);
    bool known = false;
    EXPECT_EQ(HeaderOf(frame).length, MaxBodyBytes(8, known));
    const auto back = DecodeMap(HeaderOf(frame), BodyOf(frame));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(back->region, map.region);
    EXPECT_EQ(back->extents, map.extents);
    EXPECT_EQ(back->last, last);
  }
}

TEST(PageProtocolTest, MapOutOfOrderOrBeyondAnyRegionIsRefused) {
  const std::vector<PageRange> refused[] = {
      {{{10}, 5}, {{14}, 1}},            // overlap
      {{{10}, 5}, {{0}, 1}},             // backwards
      {{{kMaxU64}, 1}},                  // beyond any region
      {{{0}, kMaxU64}},                  // longer than any region
      {{{5}, kMaxU64 - 4}, {{1}, 1}},    // wraps around
  };
  for (const auto& extents : refused) {
    const Bytes frame = EncodeMap({{0}, extents, true});
    EXPECT_FALSE(DecodeMap(HeaderOf(frame), BodyOf(frame)).ok());
  }
}

TEST(PageProtocolTest, MapThatPromisesMoreExtentsThanItHasIsRefused) {
  for (const uint32_t promised : {2u, kMaxMapExtents, kMaxMapExtents + 1, 0xffffffffu}) {
    Bytes frame = EncodeMap({{0}, {{{0}, 1}}, true});
    StoreLittleEndian(frame.data() + kFrameHeaderBytes + 4, promised);
    EXPECT_FALSE(DecodeMap(HeaderOf(frame), BodyOf(frame)).ok()) << promised;
  }
}

TEST(PageProtocolTest, ErrorComesBackAsItWentAndLongTextIsCut) {
  for (uint16_t code = 1; code <= 6; ++code) {
    const auto back = DecodeError(BodyOf(EncodeError(static_cast<PageError>(code), "cause")));
    ASSERT_TRUE(back.ok());
    EXPECT_EQ(static_cast<uint16_t>(back->code), code);
    EXPECT_EQ(back->text, "cause");
  }
  const auto cut = DecodeError(BodyOf(EncodeError(PageError::kMalformed, std::string(5000, 'x'))));
  ASSERT_TRUE(cut.ok());
  EXPECT_EQ(cut->text.size(), kMaxErrorTextBytes);
}

TEST(PageProtocolTest, ErrorWithAnUnknownCodeIsRefused) {
  for (const uint16_t code : {0, 7, 0xffff}) {
    EXPECT_FALSE(DecodeError(BodyOf(EncodeError(static_cast<PageError>(code), ""))).ok());
  }
}

// Every decoder, at every cut of a good body and with a byte too much.
TEST(PageProtocolTest, BodyThatIsCutOrTooLongIsRefusedByEveryDecoder) {
  const PageFields page{1, {{0}, {2}}};
  const RangeFields range{{0}, {{2}, 3}};
  const MapFields map{{0}, {{{0}, 1}, {{5}, 2}}, true};
  const auto decode = [](const FrameHeader& header, std::span<const std::byte> body) {
    switch (static_cast<PageFrame>(header.type)) {
      case PageFrame::kHello: return DecodeHello(body).ok();
      case PageFrame::kWelcome: return DecodeWelcome(body).ok();
      case PageFrame::kRequest:
      case PageFrame::kPage: return DecodePageFields(body).ok();
      case PageFrame::kGrant:
      case PageFrame::kRun: return DecodeRangeFields(body).ok();
      case PageFrame::kMap: return DecodeMap(header, body).ok();
      case PageFrame::kError: return DecodeError(body).ok();
      case PageFrame::kUnreadable:
        return DecodeUnreadable(body, true).ok() || DecodeUnreadable(body, false).ok();
      case PageFrame::kMapRequest:
      case PageFrame::kGoodbye: break;
    }
    return false;
  };
  for (const Bytes& frame :
       {EncodeHello({}), EncodeWelcome({1, {{{"ram", kPageBytes}, {"vga", kPageBytes}}}}),
        ToBytes(EncodeRequest(page)), ToBytes(EncodePage(page, Encoding::kZero)),
        ToBytes(EncodeGrant(range)), ToBytes(EncodeRun(range, Encoding::kZero)), EncodeMap(map),
        EncodeError(PageError::kNotNow, "not now"), EncodeUnreadable(page, "I/O error"),
        EncodeUnreadable(range, "I/O error")}) {
    const FrameHeader header = HeaderOf(frame);
    Bytes body = Body(frame);
    EXPECT_TRUE(decode(header, body)) << int{header.type};
    for (size_t length = 0; length < body.size(); ++length) {
      EXPECT_FALSE(decode(header, std::span(body).first(length))) << int{header.type} << " " << length;
    }
    body.push_back(std::byte{0});
    EXPECT_FALSE(decode(header, body)) << int{header.type};
  }
}

TEST(PageProtocolTest, OnlyElevenTypesAreKnown) {
  for (int type = 0; type < 256; ++type) {
    bool known = false;
    const uint32_t limit = MaxBodyBytes(static_cast<uint8_t>(type), known);
    EXPECT_EQ(known, type >= 1 && type <= 11) << type;
    if (!known) {
      EXPECT_EQ(limit, 0u);
    }
  }
}

TEST(PageProtocolTest, GarbageNeverDecodesToWhatTheDocumentForbids) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 20000; ++round) {
    Bytes body(random() % 64);
    // Small numbers more often than not: they reach deeper.
    for (std::byte& b : body) b = static_cast<std::byte>(random() % 3 == 0 ? random() : random() % 3);
    if (const auto welcome = DecodeWelcome(body); welcome.ok()) {
      EXPECT_TRUE(Validate(welcome->layout).ok());
    }
    FrameHeader header{8, 0, 1, static_cast<uint32_t>(body.size())};
    if (const auto map = DecodeMap(header, body); map.ok()) {
      uint64_t end = 0;
      for (const PageRange& extent : map->extents) {
        EXPECT_GE(extent.first.value, end);
        end = extent.end().value;
      }
    }
    if (const auto error = DecodeError(body); error.ok()) {
      EXPECT_LE(error->text.size(), kMaxErrorTextBytes);
    }
    if (const auto hello = DecodeHello(body); hello.ok()) {
      EXPECT_EQ(body.size(), 24u);
    }
    EXPECT_EQ(DecodePageFields(body).ok(), body.size() == kPageFieldsBytes);
    if (const auto range = DecodeRangeFields(body); range.ok()) {
      EXPECT_FALSE(range->range.empty());
    }
  }
}

}  // namespace
}  // namespace postcopy::wire
