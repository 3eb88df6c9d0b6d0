// Whole frames of the page protocol as byte vectors, for tests that feed a reader or a peer.
#pragma once

#include <cstring>
#include <vector>

#include "wire/page_frame_reader.h"

namespace postcopy::wire {

inline Bytes ToBytes(const PageFrameHead& head, const Bytes& content = {}) {
  Bytes all(head.begin(), head.end());
  all.insert(all.end(), content.begin(), content.end());
  return all;
}

// Content that tells pages apart: every eighth byte carries `seed` plus the page's number.
inline Bytes PageContent(uint64_t pages, uint8_t seed = 1) {
  Bytes content(pages * kPageBytes);
  for (size_t i = 0; i < content.size(); i += 8) {
    content[i] = static_cast<std::byte>(seed + i / kPageBytes);
  }
  return content;
}

inline Bytes RawPage(uint32_t id, PageAddress page, uint8_t seed = 1) {
  return ToBytes(EncodePage({id, page}, Encoding::kRaw), PageContent(1, seed));
}
inline Bytes ZeroPage(uint32_t id, PageAddress page) {
  return ToBytes(EncodePage({id, page}, Encoding::kZero));
}
inline Bytes RawRun(RegionId region, PageRange range, uint8_t seed = 1) {
  return ToBytes(EncodeRun({region, range}, Encoding::kRaw), PageContent(range.count_pages, seed));
}
inline Bytes ZeroRun(RegionId region, PageRange range) {
  return ToBytes(EncodeRun({region, range}, Encoding::kZero));
}

// A frame whose header says what the caller wants, whatever its body.
inline Bytes FrameOf(uint8_t type, uint8_t encoding, uint16_t aux, uint32_t length, Bytes body) {
  Bytes frame(kFrameHeaderBytes);
  EncodeFrameHeader({type, encoding, aux, length}, frame.data());
  frame.insert(frame.end(), body.begin(), body.end());
  return frame;
}

inline void Append(Bytes& to, const Bytes& more) { to.insert(to.end(), more.begin(), more.end()); }

inline std::span<const std::byte> BodyOf(const Bytes& frame) {
  return std::span(frame).subspan(kFrameHeaderBytes);
}
inline FrameHeader HeaderOf(const Bytes& frame) { return DecodeFrameHeader(frame.data()); }

}  // namespace postcopy::wire
