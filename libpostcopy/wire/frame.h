// The frame that both protocols share: an 8-byte header, then `length` bytes of body.
//
//   offset  size  field
//   0       1     type      meaning depends on the protocol
//   1       1     encoding  of the payload; 0 where there is none
//   2       2     aux       agent protocol: number of descriptors that travel with the frame
//   4       4     length    bytes that follow
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/result.h"
#include "wire/bytes.h"

namespace postcopy::wire {

inline constexpr size_t kFrameHeaderBytes = 8;

struct FrameHeader {
  uint8_t type = 0;
  uint8_t encoding = 0;
  uint16_t aux = 0;
  uint32_t length = 0;

  friend bool operator==(const FrameHeader&, const FrameHeader&) = default;
};

inline void EncodeFrameHeader(const FrameHeader& header, std::byte* to) {
  to[0] = static_cast<std::byte>(header.type);
  to[1] = static_cast<std::byte>(header.encoding);
  StoreLittleEndian(to + 2, header.aux);
  StoreLittleEndian(to + 4, header.length);
}

// REQUIRES: 8 readable bytes at `from`.
inline FrameHeader DecodeFrameHeader(const std::byte* from) {
  return {static_cast<uint8_t>(from[0]), static_cast<uint8_t>(from[1]),
          LoadLittleEndian<uint16_t>(from + 2), LoadLittleEndian<uint32_t>(from + 4)};
}

struct Frame {
  FrameHeader header;
  std::vector<std::byte> body;
};

// Turns a byte stream, cut anywhere, into whole frames. For frames that are small and rare; runs of
// pages have a reader of their own (page_frame_reader.h) that does not copy their payload.
class FrameReader {
 public:
  explicit FrameReader(size_t max_body_bytes) : max_body_bytes_(max_body_bytes) {}

  void Feed(std::span<const std::byte> bytes) {
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
  }
  // True if no part of a frame is there.
  bool empty() const { return buffer_.empty(); }
  enum class Outcome { kFrame, kNeedMore, kTooLong };
  // kFrame: `frame` holds the next frame. kTooLong: the peer announced more than the limit; the
  // stream cannot be read on. Nothing is allocated for a body before its length has been checked.
  Outcome Next(Frame& frame) {
    if (buffer_.size() < kFrameHeaderBytes) return Outcome::kNeedMore;
    const FrameHeader header = DecodeFrameHeader(buffer_.data());
    if (header.length > max_body_bytes_) return Outcome::kTooLong;
    const size_t total = kFrameHeaderBytes + header.length;
    if (buffer_.size() < total) return Outcome::kNeedMore;
    frame.header = header;
    frame.body.assign(buffer_.begin() + kFrameHeaderBytes,
                      buffer_.begin() + static_cast<ptrdiff_t>(total));
    buffer_.erase(buffer_.begin(), buffer_.begin() + static_cast<ptrdiff_t>(total));
    return Outcome::kFrame;
  }

 private:
  size_t max_body_bytes_;
  std::vector<std::byte> buffer_;
};

}  // namespace postcopy::wire
