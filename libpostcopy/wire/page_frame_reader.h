// Cuts the byte stream of a lane into frames without copying page content.
//
// The reader owns one buffer. The caller receives into WritableSpace(), tells how much came, and
// takes what is complete: whole frames, and of PAGE and RUN frames every whole page that is there,
// even if the rest of the frame is still on its way. At most a partial page or a partial small
// frame is moved to the buffer's front.
//
// Pure; not thread-safe; no allocation after construction.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "wire/page_protocol.h"

namespace postcopy::wire {

class PageFrameReader {
 public:
  // REQUIRES: capacity_bytes >= kMinCapacityBytes.
  static constexpr size_t kMinCapacityBytes = 128 << 10;
  explicit PageFrameReader(size_t capacity_bytes);

  // Never empty after Next() has returned kNeedMore. Ends what Next() handed out before.
  std::span<std::byte> WritableSpace();
  void Commit(size_t received_bytes) { end_ += received_bytes; }

  enum class Outcome { kPiece, kFrame, kNeedMore, kMalformed };
  struct Item {
    FrameHeader header;
    // kFrame: a whole small frame's body. kPiece: page content, a whole number of pages; empty for
    // encoding zero. Valid until WritableSpace() is called.
    std::span<const std::byte> bytes;
    // kPiece of a PAGE frame.
    PageFields page;
    // kPiece of a RUN frame: the pages that `bytes` holds (all of the run for encoding zero).
    RangeFields run;
  };
  // kMalformed: the peer broke the protocol; the stream cannot be read on.
  Outcome Next(Item& item);

 private:
  Outcome StartFrame(Item& item);
  Outcome ContinueContent(Item& item);
  size_t available() const { return end_ - begin_; }

  size_t capacity_;
  std::unique_ptr<std::byte[]> buffer_;
  size_t begin_ = 0;
  size_t end_ = 0;
  // A PAGE or RUN whose content is being handed out; content_pages_ is what is still to come.
  Item current_{};
  uint64_t content_pages_ = 0;
};

}  // namespace postcopy::wire
