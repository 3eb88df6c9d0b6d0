#include "wire/page_frame_reader.h"

#include <algorithm>
#include <cassert>
#include <cstring>

namespace postcopy::wire {

PageFrameReader::PageFrameReader(size_t capacity_bytes)
    : capacity_(capacity_bytes), buffer_(std::make_unique_for_overwrite<std::byte[]>(capacity_bytes)) {
  assert(capacity_bytes >= kMinCapacityBytes);
}

std::span<std::byte> PageFrameReader::WritableSpace() {
  if (begin_ == end_) {
    begin_ = end_ = 0;
  } else if (begin_ != 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, available());
    end_ -= begin_;
    begin_ = 0;
  }
  return {buffer_.get() + end_, capacity_ - end_};
}

PageFrameReader::Outcome PageFrameReader::Next(Item& item) {
  return content_pages_ > 0 ? ContinueContent(item) : StartFrame(item);
}

PageFrameReader::Outcome PageFrameReader::StartFrame(Item& item) {
  if (available() < kFrameHeaderBytes) return Outcome::kNeedMore;
  const std::byte* const start = buffer_.get() + begin_;
  const FrameHeader header = DecodeFrameHeader(start);
  bool known = false;
  const uint32_t limit = MaxBodyBytes(header.type, known);
  if (!known || header.length > limit) return Outcome::kMalformed;
  if ((header.aux & ~PossibleAux(header.type)) != 0) return Outcome::kMalformed;

  const auto type = static_cast<PageFrame>(header.type);
  if (type != PageFrame::kPage && type != PageFrame::kRun) {
    if (header.encoding != 0) return Outcome::kMalformed;
    if (available() < kFrameHeaderBytes + header.length) return Outcome::kNeedMore;
    item.header = header;
    item.bytes = {start + kFrameHeaderBytes, header.length};
    begin_ += kFrameHeaderBytes + header.length;
    return Outcome::kFrame;
  }

  if (available() < kPageFrameBytes) return Outcome::kNeedMore;
  const std::span<const std::byte> fixed(start + kFrameHeaderBytes, kPageFieldsBytes);
  if (header.encoding > static_cast<uint8_t>(Encoding::kZero)) return Outcome::kMalformed;
  uint64_t pages = 1;
  if (type == PageFrame::kPage) {
    current_.page = DecodePageFields(fixed).value();
  } else {
    const auto run = DecodeRangeFields(fixed);
    if (!run.ok() || run->range.count_pages > kMaxRunPages ||
        run->range.first.value > kMaxRegionBytes / kPageBytes) {
      return Outcome::kMalformed;
    }
    current_.run = *run;
    pages = current_.run.range.count_pages;
  }
  const bool raw = header.encoding == static_cast<uint8_t>(Encoding::kRaw);
  if (header.length != kPageFieldsBytes + (raw ? pages * kPageBytes : 0)) return Outcome::kMalformed;
  current_.header = header;
  begin_ += kPageFrameBytes;
  if (!raw) {
    item = current_;
    item.bytes = {};
    return Outcome::kPiece;
  }
  content_pages_ = pages;
  return ContinueContent(item);
}

PageFrameReader::Outcome PageFrameReader::ContinueContent(Item& item) {
  const uint64_t pages = std::min<uint64_t>(available() / kPageBytes, content_pages_);
  if (pages == 0) return Outcome::kNeedMore;
  item = current_;
  item.bytes = {buffer_.get() + begin_, pages * kPageBytes};
  item.run.range.count_pages = pages;
  current_.run.range.first = current_.run.range.first + pages;
  content_pages_ -= pages;
  begin_ += pages * kPageBytes;
  return Outcome::kPiece;
}

}  // namespace postcopy::wire
