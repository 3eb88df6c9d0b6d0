#include "wire/page_protocol.h"

#include <algorithm>

namespace postcopy::wire {
namespace {

Error Malformed(std::string_view frame) {
  return {ErrorCode::kProtocol, "page protocol: malformed " + std::string(frame)};
}

// A frame whose body is written by `fill`; the length is set afterwards.
template <typename Fill>
Bytes MakeFrame(PageFrame type, uint16_t aux, Fill fill) {
  Bytes out(kFrameHeaderBytes);
  ByteWriter writer(out);
  fill(writer);
  EncodeFrameHeader({static_cast<uint8_t>(type), 0, aux,
                     static_cast<uint32_t>(out.size() - kFrameHeaderBytes)},
                    out.data());
  return out;
}

PageFrameHead MakeHead(PageFrame type, Encoding encoding, uint32_t content_bytes, uint32_t a,
                       uint32_t b, uint64_t c) {
  PageFrameHead head;
  EncodeFrameHeader({static_cast<uint8_t>(type), static_cast<uint8_t>(encoding), 0,
                     kPageFieldsBytes + content_bytes},
                    head.data());
  StoreLittleEndian(head.data() + 8, a);
  StoreLittleEndian(head.data() + 12, b);
  StoreLittleEndian(head.data() + 16, c);
  return head;
}

uint32_t ContentBytes(Encoding encoding, uint64_t pages) {
  return encoding == Encoding::kRaw ? static_cast<uint32_t>(pages * kPageBytes) : 0;
}

}  // namespace

Bytes EncodeHello(const Hello& hello) {
  return MakeFrame(PageFrame::kHello, 0, [&](ByteWriter& out) {
    out.U32(kPageProtocolMagic);
    out.U16(hello.version);
    out.U8(static_cast<uint8_t>(hello.lane));
    out.U8(0);
    out.Bytes(hello.session.bytes);
  });
}

Result<Hello> DecodeHello(std::span<const std::byte> body) {
  ByteReader in(body);
  const uint32_t magic = in.U32();
  Hello hello;
  hello.version = in.U16();
  const uint8_t lane = in.U8();
  in.U8();
  const auto session = in.Bytes(hello.session.bytes.size());
  if (!in.finished() || magic != kPageProtocolMagic || lane > 1) return Malformed("HELLO");
  hello.lane = static_cast<Lane>(lane);
  std::copy(session.begin(), session.end(), hello.session.bytes.begin());
  return hello;
}

Bytes EncodeWelcome(const Welcome& welcome) {
  return MakeFrame(PageFrame::kWelcome, 0, [&](ByteWriter& out) {
    out.U16(welcome.version);
    out.U16(static_cast<uint16_t>(welcome.layout.regions.size()));
    for (const Region& region : welcome.layout.regions) {
      out.U64(region.size_bytes);
      out.Text(region.name);
    }
  });
}

Result<Welcome> DecodeWelcome(std::span<const std::byte> body) {
  ByteReader in(body);
  Welcome welcome;
  welcome.version = in.U16();
  const uint16_t count = in.U16();
  if (count > kMaxRegions) return Malformed("WELCOME");
  for (uint16_t i = 0; i < count && in.ok(); ++i) {
    Region region;
    region.size_bytes = in.U64();
    region.name = in.Text(kMaxRegionNameBytes);
    welcome.layout.regions.push_back(std::move(region));
  }
  if (!in.finished() || !Validate(welcome.layout).ok()) return Malformed("WELCOME");
  return welcome;
}

Bytes EncodeMapRequest() {
  return MakeFrame(PageFrame::kMapRequest, 0, [](ByteWriter&) {});
}

Bytes EncodeGoodbye() {
  return MakeFrame(PageFrame::kGoodbye, 0, [](ByteWriter&) {});
}

Bytes EncodeMap(const MapFields& map) {
  return MakeFrame(PageFrame::kMap, map.last ? kLastMap : 0, [&](ByteWriter& out) {
    out.U32(map.region.value);
    out.U32(static_cast<uint32_t>(map.extents.size()));
    for (const PageRange& extent : map.extents) {
      out.U64(extent.first.value);
      out.U64(extent.count_pages);
    }
  });
}

Result<MapFields> DecodeMap(const FrameHeader& header, std::span<const std::byte> body) {
  ByteReader in(body);
  MapFields map;
  map.last = (header.aux & kLastMap) != 0;
  map.region.value = in.U32();
  const uint32_t count = in.U32();
  if (count > kMaxMapExtents) return Malformed("MAP");
  uint64_t previous_end = 0;
  for (uint32_t i = 0; i < count && in.ok(); ++i) {
    const PageRange extent{{in.U64()}, in.U64()};
    constexpr uint64_t kMaxPages = kMaxRegionBytes / kPageBytes;
    if (extent.first.value < previous_end || extent.first.value > kMaxPages ||
        extent.count_pages > kMaxPages) {
      return Malformed("MAP");
    }
    previous_end = extent.end().value;
    map.extents.push_back(extent);
  }
  if (!in.finished()) return Malformed("MAP");
  return map;
}

Bytes EncodeError(PageError code, std::string_view text) {
  return MakeFrame(PageFrame::kError, 0, [&](ByteWriter& out) {
    out.U16(static_cast<uint16_t>(code));
    out.Text(text.substr(0, kMaxErrorTextBytes));
  });
}

Result<ErrorFields> DecodeError(std::span<const std::byte> body) {
  ByteReader in(body);
  const uint16_t code = in.U16();
  ErrorFields fields;
  fields.text = in.Text(kMaxErrorTextBytes);
  if (!in.finished() || code < 1 || code > 6) return Malformed("ERROR");
  fields.code = static_cast<PageError>(code);
  return fields;
}

Bytes EncodeUnreadable(const PageFields& fields, std::string_view text) {
  return MakeFrame(PageFrame::kUnreadable, 0, [&](ByteWriter& out) {
    out.U32(fields.id);
    out.U32(fields.page.region.value);
    out.U64(fields.page.page.value);
    out.Text(text.substr(0, kMaxErrorTextBytes));
  });
}

Bytes EncodeUnreadable(const RangeFields& fields, std::string_view text) {
  return MakeFrame(PageFrame::kUnreadable, 0, [&](ByteWriter& out) {
    out.U32(fields.region.value);
    out.U32(static_cast<uint32_t>(fields.range.count_pages));
    out.U64(fields.range.first.value);
    out.Text(text.substr(0, kMaxErrorTextBytes));
  });
}

Result<UnreadableFields> DecodeUnreadable(std::span<const std::byte> body, bool urgent) {
  if (body.size() < kPageFieldsBytes) return Malformed("UNREADABLE");
  const auto fixed = body.first(kPageFieldsBytes);
  UnreadableFields fields;
  if (urgent) {
    fields.page = DecodePageFields(fixed).value();
  } else {
    const auto run = DecodeRangeFields(fixed);
    if (!run.ok()) return Malformed("UNREADABLE");
    fields.run = *run;
  }
  ByteReader in(body.subspan(kPageFieldsBytes));
  fields.text = in.Text(kMaxErrorTextBytes);
  if (!in.finished()) return Malformed("UNREADABLE");
  return fields;
}

PageFrameHead EncodeRequest(const PageFields& fields) {
  return MakeHead(PageFrame::kRequest, Encoding::kRaw, 0, fields.id, fields.page.region.value,
                  fields.page.page.value);
}

PageFrameHead EncodePage(const PageFields& fields, Encoding encoding) {
  return MakeHead(PageFrame::kPage, encoding, ContentBytes(encoding, 1), fields.id,
                  fields.page.region.value, fields.page.page.value);
}

PageFrameHead EncodeGrant(const RangeFields& fields) {
  return MakeHead(PageFrame::kGrant, Encoding::kRaw, 0, fields.region.value,
                  static_cast<uint32_t>(fields.range.count_pages), fields.range.first.value);
}

PageFrameHead EncodeRun(const RangeFields& fields, Encoding encoding) {
  return MakeHead(PageFrame::kRun, encoding, ContentBytes(encoding, fields.range.count_pages),
                  fields.region.value, static_cast<uint32_t>(fields.range.count_pages),
                  fields.range.first.value);
}

Result<PageFields> DecodePageFields(std::span<const std::byte> fixed) {
  ByteReader in(fixed);
  PageFields fields;
  fields.id = in.U32();
  fields.page.region.value = in.U32();
  fields.page.page.value = in.U64();
  if (!in.finished()) return Malformed("REQUEST or PAGE");
  return fields;
}

Result<RangeFields> DecodeRangeFields(std::span<const std::byte> fixed) {
  ByteReader in(fixed);
  RangeFields fields;
  fields.region.value = in.U32();
  fields.range.count_pages = in.U32();
  fields.range.first.value = in.U64();
  if (!in.finished() || fields.range.empty()) return Malformed("GRANT or RUN");
  return fields;
}

uint16_t PossibleAux(uint8_t type) {
  return static_cast<PageFrame>(type) == PageFrame::kMap ? kLastMap : uint16_t{0};
}

uint32_t MaxBodyBytes(uint8_t type, bool& known) {
  known = true;
  switch (static_cast<PageFrame>(type)) {
    case PageFrame::kHello:
    case PageFrame::kUnreadable:
    case PageFrame::kError: return kMaxSmallBodyBytes;
    case PageFrame::kWelcome: return kMaxRegions * (8 + 2 + kMaxRegionNameBytes) + 4;
    case PageFrame::kRequest:
    case PageFrame::kGrant: return kPageFieldsBytes;
    case PageFrame::kPage: return kPageFieldsBytes + kPageBytes;
    case PageFrame::kRun: return kPageFieldsBytes + kMaxRunPages * kPageBytes;
    case PageFrame::kMap: return 8 + 16 * kMaxMapExtents;
    case PageFrame::kMapRequest:
    case PageFrame::kGoodbye: return 0;
  }
  known = false;
  return 0;
}

}  // namespace postcopy::wire
