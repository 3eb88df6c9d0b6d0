#include "wire/keepsake_header.h"

#include "gmock/gmock.h"

namespace postcopy::wire {
namespace {

using testing::HasSubstr;

KeepsakeHeader Header() {
  KeepsakeHeader header;
  header.session.bytes[3] = std::byte{9};
  header.regions = {{{"ram", 0x10000000}, 0x7f0000000000}, {{"dimm", 0x2000}, 0x7f0020000000}};
  header.data_addresses = {"10.0.0.7:7701", "[fd00::7]:7701"};
  return header;
}

TEST(KeepsakeHeaderTest, SurvivesItsBytesAndTheZerosBehindThem) {
  auto bytes = EncodeKeepsakeHeader(Header());
  for (const size_t size : {bytes.size(), kKeepsakeHeaderBytes, 2 * kKeepsakeHeaderBytes}) {
    bytes.resize(size);
    const auto decoded = DecodeKeepsakeHeader(bytes);
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_TRUE(*decoded == Header());
  }
}

TEST(KeepsakeHeaderTest, TheLargestOneLeavesRoomForTheTimeOfResume) {
  KeepsakeHeader header = Header();
  header.regions.clear();
  for (size_t i = 0; i < kMaxRegions; ++i) {
    std::string name = std::to_string(i);
    name.resize(kMaxRegionNameBytes, 'n');
    header.regions.push_back({{name, kMaxRegionBytes}, 0});
  }
  header.data_addresses.assign(kMaxKeepsakeAddresses, std::string(kMaxKeepsakeAddressBytes, 'a'));
  ASSERT_TRUE(Validate(header).ok());
  const auto bytes = EncodeKeepsakeHeader(header);
  EXPECT_LE(bytes.size(), kKeepsakeResumedOffset);
  EXPECT_TRUE(DecodeKeepsakeHeader(bytes).ok());
}

TEST(KeepsakeHeaderTest, BytesCutAnywhereAreRefused) {
  const auto bytes = EncodeKeepsakeHeader(Header());
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(DecodeKeepsakeHeader(std::span(bytes).first(size)).ok()) << size;
  }
}

TEST(KeepsakeHeaderTest, WhatIsAcceptedIsValidAndHasOneEncoding) {
  const auto whole = EncodeKeepsakeHeader(Header());
  for (size_t i = 0; i < whole.size(); ++i) {
    for (const uint8_t value : {0x00, 0x01, 0x7f, 0xff}) {
      auto bytes = whole;
      bytes[i] = std::byte{value};
      const auto decoded = DecodeKeepsakeHeader(bytes);
      if (!decoded.ok()) continue;
      EXPECT_TRUE(Validate(*decoded).ok());
      EXPECT_EQ(EncodeKeepsakeHeader(*decoded),
                std::vector(
                    bytes.begin(),
                    bytes.begin() + static_cast<ptrdiff_t>(EncodeKeepsakeHeader(*decoded).size())));
    }
  }
}

TEST(KeepsakeHeaderTest, AnotherVersionIsToldApart) {
  auto bytes = EncodeKeepsakeHeader(Header());
  bytes[4] = std::byte{2};
  EXPECT_EQ(DecodeKeepsakeHeader(bytes).error().code, ErrorCode::kUnsupported);
}

TEST(KeepsakeHeaderTest, ARefusalNamesTheField) {
  const auto why_not = [](void (*change)(KeepsakeHeader&)) {
    KeepsakeHeader header = Header();
    change(header);
    const auto valid = Validate(header);
    return valid.ok() ? "valid" : valid.error().message;
  };
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.session = {}; }), HasSubstr("session id is zero"));
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.regions.clear(); }), HasSubstr("no region"));
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.regions[1].region.name = "ram"; }),
              HasSubstr("named ram"));
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.regions[1].address = 1; }),
              HasSubstr("dimm lies at no"));
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.regions[0].address = ~uint64_t{0xfff}; }),
              HasSubstr("ram lies at no"));
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.data_addresses.clear(); }),
              HasSubstr("0 addresses"));
  EXPECT_THAT(why_not([](KeepsakeHeader& h) { h.data_addresses[1].clear(); }),
              HasSubstr("of 0 bytes"));
}

}  // namespace
}  // namespace postcopy::wire
