// What a peer may send on a lane: the stream, cut anywhere, through the frame reader, and each body
// through its decoder. First byte of the input: how long the pieces are in which it arrives.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "wire/page_frame_reader.h"

namespace postcopy::wire {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

// What decodes must encode to the same bytes.
void DecodeBody(const PageFrameReader::Item& item) {
  const auto frame_of = [&](std::span<const std::byte> body) {
    Bytes frame(kFrameHeaderBytes);
    EncodeFrameHeader(item.header, frame.data());
    frame.insert(frame.end(), body.begin(), body.end());
    return frame;
  };
  switch (static_cast<PageFrame>(item.header.type)) {
    case PageFrame::kHello: {
      const auto hello = DecodeHello(item.bytes);
      if (!hello.ok()) return;
      const Bytes again = EncodeHello(*hello);
      Require(DecodeHello(std::span(again).subspan(kFrameHeaderBytes)).ok());
      return;
    }
    case PageFrame::kWelcome: {
      const auto welcome = DecodeWelcome(item.bytes);
      if (!welcome.ok()) return;
      const Bytes again = EncodeWelcome(*welcome);
      const auto decoded = DecodeWelcome(std::span(again).subspan(kFrameHeaderBytes));
      Require(decoded.ok() && decoded->layout.regions == welcome->layout.regions);
      return;
    }
    case PageFrame::kMap: {
      const auto map = DecodeMap(item.header, item.bytes);
      if (map.ok()) Require(EncodeMap(*map) == frame_of(item.bytes));
      return;
    }
    case PageFrame::kError: {
      const auto error = DecodeError(item.bytes);
      if (error.ok()) Require(error->text.size() <= kMaxErrorTextBytes);
      return;
    }
    case PageFrame::kUnreadable: {
      const auto page = DecodeUnreadable(item.bytes, true);
      if (page.ok()) Require(EncodeUnreadable(page->page, page->text) == frame_of(item.bytes));
      const auto range = DecodeUnreadable(item.bytes, false);
      if (range.ok()) Require(EncodeUnreadable(range->run, range->text) == frame_of(item.bytes));
      return;
    }
    case PageFrame::kRequest: {
      [[maybe_unused]] const auto request = DecodePageFields(item.bytes);
      return;
    }
    case PageFrame::kGrant: {
      [[maybe_unused]] const auto grant = DecodeRangeFields(item.bytes);
      return;
    }
    case PageFrame::kPage:
    case PageFrame::kRun:
    case PageFrame::kMapRequest:
    case PageFrame::kGoodbye: return;
  }
}

void Read(std::span<const std::byte> input) {
  if (input.empty()) return;
  const size_t piece = 1 + static_cast<size_t>(input[0]) * 37;
  input = input.subspan(1);
  PageFrameReader reader(PageFrameReader::kMinCapacityBytes);
  uint64_t handed_out = 0;
  const size_t total = input.size();
  while (!input.empty()) {
    const std::span<std::byte> space = reader.WritableSpace();
    Require(!space.empty());
    const size_t count = std::min({piece, input.size(), space.size()});
    std::memcpy(space.data(), input.data(), count);
    reader.Commit(count);
    input = input.subspan(count);
    PageFrameReader::Item item;
    for (;;) {
      const auto outcome = reader.Next(item);
      if (outcome == PageFrameReader::Outcome::kNeedMore) break;
      if (outcome == PageFrameReader::Outcome::kMalformed) return;
      handed_out += item.bytes.size();
      Require(handed_out <= total);
      if (outcome == PageFrameReader::Outcome::kFrame) DecodeBody(item);
    }
  }
}

}  // namespace
}  // namespace postcopy::wire

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postcopy::wire::Read(std::as_bytes(std::span(data, size)));
  return 0;
}
