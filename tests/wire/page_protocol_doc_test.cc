// docs/wire-protocol.md and the codec say the same: the document's hex examples are encoded and
// decoded, and its table of limits is compared with the constants.
#include <functional>
#include <set>

#include "gmock/gmock.h"
#include "tests/wire/hex_examples.h"
#include "tests/wire/page_frames.h"

namespace postcopy::wire {
namespace {

constexpr char kDocument[] = POSTCOPY_DOCS "/wire-protocol.md";

constexpr PageAddress kPage{{0}, {0x12345}};
constexpr RangeFields kGranted{{0}, {{0x400}, 64}};
constexpr RangeFields kZeros{{0}, {{0x400}, 16}};
constexpr RangeFields kUnreadable{{0}, {{0x410}, 2}};

Hello DocumentedHello() {
  return {1, Lane::kUrgent, *SessionId::Parse("00112233445566778899aabbccddeeff")};
}
Welcome DocumentedWelcome() { return {1, {{{"ram", uint64_t{1} << 30}}}}; }
MapFields DocumentedMap() { return {{0}, {{{0}, 0xa0}, {{0x100}, 0x80}}, true}; }

// By name: what the encoder makes, and a check of what the decoder reads.
struct Example {
  Bytes encoded;
  std::function<void(const Bytes& frame)> check;
};

std::map<std::string, Example> Expected() {
  return {
      {"hello",
       {EncodeHello(DocumentedHello()),
        [](const Bytes& frame) {
          const auto hello = DecodeHello(BodyOf(frame));
          ASSERT_TRUE(hello.ok());
          EXPECT_EQ(hello->version, 1);
          EXPECT_EQ(hello->lane, Lane::kUrgent);
          EXPECT_EQ(hello->session, DocumentedHello().session);
        }}},
      {"welcome",
       {EncodeWelcome(DocumentedWelcome()),
        [](const Bytes& frame) {
          const auto welcome = DecodeWelcome(BodyOf(frame));
          ASSERT_TRUE(welcome.ok());
          EXPECT_EQ(welcome->version, 1);
          EXPECT_EQ(welcome->layout.regions, DocumentedWelcome().layout.regions);
        }}},
      {"request",
       {ToBytes(EncodeRequest({7, kPage})),
        [](const Bytes& frame) {
          const auto request = DecodePageFields(BodyOf(frame));
          ASSERT_TRUE(request.ok());
          EXPECT_EQ(request->id, 7u);
          EXPECT_EQ(request->page, kPage);
        }}},
      {"page-zero",
       {ToBytes(EncodePage({7, kPage}, Encoding::kZero)),
        [](const Bytes& frame) {
          const auto page = DecodePageFields(BodyOf(frame));
          ASSERT_TRUE(page.ok());
          EXPECT_EQ(page->id, 7u);
          EXPECT_EQ(page->page, kPage);
        }}},
      {"grant",
       {ToBytes(EncodeGrant(kGranted)),
        [](const Bytes& frame) {
          const auto grant = DecodeRangeFields(BodyOf(frame));
          ASSERT_TRUE(grant.ok());
          EXPECT_EQ(grant->region, kGranted.region);
          EXPECT_EQ(grant->range, kGranted.range);
        }}},
      {"run-zero",
       {ToBytes(EncodeRun(kZeros, Encoding::kZero)),
        [](const Bytes& frame) {
          const auto run = DecodeRangeFields(BodyOf(frame));
          ASSERT_TRUE(run.ok());
          EXPECT_EQ(run->range, kZeros.range);
        }}},
      {"map-request",
       {EncodeMapRequest(), [](const Bytes& frame) { EXPECT_TRUE(BodyOf(frame).empty()); }}},
      {"map",
       {EncodeMap(DocumentedMap()),
        [](const Bytes& frame) {
          const auto map = DecodeMap(HeaderOf(frame), BodyOf(frame));
          ASSERT_TRUE(map.ok());
          EXPECT_TRUE(map->last);
          EXPECT_EQ(map->extents, DocumentedMap().extents);
        }}},
      {"error",
       {EncodeError(PageError::kNoSuchSession, "no such session"),
        [](const Bytes& frame) {
          const auto error = DecodeError(BodyOf(frame));
          ASSERT_TRUE(error.ok());
          EXPECT_EQ(error->code, PageError::kNoSuchSession);
          EXPECT_EQ(error->text, "no such session");
        }}},
      {"unreadable",
       {EncodeUnreadable(kUnreadable, "Input/output error"),
        [](const Bytes& frame) {
          const auto unreadable = DecodeUnreadable(BodyOf(frame), /*urgent=*/false);
          ASSERT_TRUE(unreadable.ok());
          EXPECT_EQ(unreadable->run.range, kUnreadable.range);
          EXPECT_EQ(unreadable->text, "Input/output error");
        }}},
      {"goodbye", {EncodeGoodbye(), [](const Bytes& frame) { EXPECT_TRUE(BodyOf(frame).empty()); }}},
  };
}

TEST(PageProtocolDocTest, EveryExampleIsWhatTheEncoderMakesAndTheDecoderReads) {
  const auto examples = ReadHexExamples(kDocument);
  const auto expected = Expected();
  for (const auto& [name, frame] : examples) {
    SCOPED_TRACE(name);
    ASSERT_TRUE(expected.contains(name)) << "an example that no test covers";
    EXPECT_EQ(expected.at(name).encoded, frame);
    ASSERT_GE(frame.size(), kFrameHeaderBytes);
    EXPECT_EQ(HeaderOf(frame).length, frame.size() - kFrameHeaderBytes);
    expected.at(name).check(frame);
  }
  EXPECT_EQ(examples.size(), expected.size()) << "an example is gone from the document";
}

TEST(PageProtocolDocTest, EveryExampleIsOneFrameToTheReader) {
  for (const auto& [name, frame] : ReadHexExamples(kDocument)) {
    SCOPED_TRACE(name);
    PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
    std::memcpy(reader.WritableSpace().data(), frame.data(), frame.size());
    reader.Commit(frame.size());
    PageFrameReader::Item item;
    const auto outcome = reader.Next(item);
    EXPECT_TRUE(outcome == PageFrameReader::Outcome::kFrame ||
                outcome == PageFrameReader::Outcome::kPiece);
    EXPECT_EQ(item.header, HeaderOf(frame));
    EXPECT_EQ(reader.Next(item), PageFrameReader::Outcome::kNeedMore);
  }
}

TEST(PageProtocolDocTest, EveryFrameTypeButThoseWithContentHasAnExample) {
  std::set<uint8_t> types;
  for (const auto& [name, frame] : ReadHexExamples(kDocument)) types.insert(HeaderOf(frame).type);
  EXPECT_EQ(types, (std::set<uint8_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
}

TEST(PageProtocolDocTest, TableOfLimitsIsTheCodes) {
  const std::string document = ReadDocument(kDocument);
  for (const std::string& row :
       {"| pages in one RUN | " + std::to_string(kMaxRunPages) + " (256 KiB) |",
        std::string("| extents in one MAP | 4,096 |"),
        "| regions in WELCOME | " + std::to_string(kMaxRegions) + " |",
        "| region name, error text | " + std::to_string(kMaxRegionNameBytes) + ", 1,024 bytes |",
        std::string("| body of every frame but PAGE, RUN, MAP and WELCOME | 4,096 bytes |"),
        "Version " + std::to_string(kPageProtocolVersion) + "."}) {
    EXPECT_NE(document.find(row), std::string::npos) << row;
  }
  EXPECT_EQ(kMaxMapExtents, 4096u);
  EXPECT_EQ(kMaxErrorTextBytes, 1024u);
  EXPECT_EQ(kMaxSmallBodyBytes, 4096u);
  EXPECT_EQ(kPageBytes, 4096u);
}

}  // namespace
}  // namespace postcopy::wire
