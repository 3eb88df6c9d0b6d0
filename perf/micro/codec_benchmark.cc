// wire/page_protocol.h, frame by frame, and wire/page_frame_reader.h over a stream that comes in
// pieces.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "tests/wire/page_frames.h"
#include "wire/page_frame_reader.h"
#include "wire/page_protocol.h"

namespace postcopy::wire {
namespace {

constexpr PageFields kOnePage{7, {{1}, {123456}}};
constexpr RangeFields kOneRun{{1}, {{123456}, kMaxRunPages}};

Welcome FullWelcome() {
  Welcome welcome;
  for (size_t i = 0; i < kMaxRegions; ++i) {
    welcome.layout.regions.push_back({"block " + std::to_string(i), uint64_t{1} << 30});
  }
  return welcome;
}

MapFields FullMap() {
  MapFields map;
  for (uint64_t i = 0; i < kMaxMapExtents; ++i) map.extents.push_back({{i * 100}, 50});
  return map;
}

template <typename Encode>
void Repeat(benchmark::State& state, Encode encode) {
  for (auto _ : state) benchmark::DoNotOptimize(encode());
  state.SetItemsProcessed(state.iterations());
}

void BM_Encode(benchmark::State& state, PageFrame frame) {
  const Welcome welcome = FullWelcome();
  const MapFields map = FullMap();
  switch (frame) {
    case PageFrame::kHello:
      return Repeat(state, [] { return EncodeHello({}); });
    case PageFrame::kWelcome:
      return Repeat(state, [&] { return EncodeWelcome(welcome); });
    case PageFrame::kRequest:
      return Repeat(state, [] { return EncodeRequest(kOnePage); });
    case PageFrame::kPage:
      return Repeat(state, [] { return EncodePage(kOnePage, Encoding::kRaw); });
    case PageFrame::kGrant:
      return Repeat(state, [] { return EncodeGrant(kOneRun); });
    case PageFrame::kRun:
      return Repeat(state, [] { return EncodeRun(kOneRun, Encoding::kRaw); });
    case PageFrame::kMapRequest:
      return Repeat(state, [] { return EncodeMapRequest(); });
    case PageFrame::kMap:
      return Repeat(state, [&] { return EncodeMap(map); });
    case PageFrame::kUnreadable:
      return Repeat(state, [] { return EncodeUnreadable(kOneRun, "read RAM file: I/O error"); });
    case PageFrame::kError:
      return Repeat(state,
                    [] { return EncodeError(PageError::kReadFailed, "read RAM file: I/O error"); });
    case PageFrame::kGoodbye:
      return Repeat(state, [] { return EncodeGoodbye(); });
  }
}
BENCHMARK_CAPTURE(BM_Encode, hello, PageFrame::kHello);
BENCHMARK_CAPTURE(BM_Encode, welcome_of_64_blocks, PageFrame::kWelcome);
BENCHMARK_CAPTURE(BM_Encode, request, PageFrame::kRequest);
BENCHMARK_CAPTURE(BM_Encode, page_head, PageFrame::kPage);
BENCHMARK_CAPTURE(BM_Encode, grant, PageFrame::kGrant);
BENCHMARK_CAPTURE(BM_Encode, run_head, PageFrame::kRun);
BENCHMARK_CAPTURE(BM_Encode, map_request, PageFrame::kMapRequest);
BENCHMARK_CAPTURE(BM_Encode, map_of_4096_extents, PageFrame::kMap);
BENCHMARK_CAPTURE(BM_Encode, unreadable, PageFrame::kUnreadable);
BENCHMARK_CAPTURE(BM_Encode, error, PageFrame::kError);
BENCHMARK_CAPTURE(BM_Encode, goodbye, PageFrame::kGoodbye);

// Of the frames that have a body.
template <typename Decode>
void BM_Decode(benchmark::State& state, const Bytes& frame, Decode decode) {
  const auto body = BodyOf(frame);
  for (auto _ : state) {
    auto decoded = decode(body);
    if (!decoded.ok()) return state.SkipWithError(decoded.error().message.c_str());
    benchmark::DoNotOptimize(decoded);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK_CAPTURE(BM_Decode, hello, EncodeHello({}), DecodeHello);
BENCHMARK_CAPTURE(BM_Decode, welcome_of_64_blocks, EncodeWelcome(FullWelcome()), DecodeWelcome);
BENCHMARK_CAPTURE(BM_Decode, request_or_page, ToBytes(EncodeRequest(kOnePage)), DecodePageFields);
BENCHMARK_CAPTURE(BM_Decode, grant_or_run, ToBytes(EncodeGrant(kOneRun)), DecodeRangeFields);
BENCHMARK_CAPTURE(BM_Decode, map_of_4096_extents, EncodeMap(FullMap()),
                  [frame = EncodeMap(FullMap())](std::span<const std::byte> body) {
                    return DecodeMap(HeaderOf(frame), body);
                  });
BENCHMARK_CAPTURE(BM_Decode, error, EncodeError(PageError::kReadFailed, "read RAM file: I/O error"),
                  DecodeError);

// Runs and single pages, raw and zero, received `chunk` bytes at a time.
void BM_ReadStream(benchmark::State& state) {
  const size_t chunk_bytes = static_cast<size_t>(state.range(0));
  Bytes stream;
  for (uint64_t i = 0; i < 16; ++i) {
    Append(stream, RawRun({0}, {{i * 128}, kMaxRunPages}));
    Append(stream, ZeroRun({0}, {{i * 128 + 64}, kMaxRunPages}));
    Append(stream, RawPage(static_cast<uint32_t>(i), {{0}, {i}}));
  }
  for (auto _ : state) {
    PageFrameReader reader(256 << 10);
    PageFrameReader::Item item;
    for (std::span<const std::byte> left(stream); !left.empty();) {
      const std::span<std::byte> space = reader.WritableSpace();
      const size_t come = std::min({chunk_bytes, space.size(), left.size()});
      std::memcpy(space.data(), left.data(), come);
      reader.Commit(come);
      left = left.subspan(come);
      PageFrameReader::Outcome outcome;
      while ((outcome = reader.Next(item)) != PageFrameReader::Outcome::kNeedMore) {
        if (outcome == PageFrameReader::Outcome::kMalformed) {
          return state.SkipWithError("the stream is malformed");
        }
        benchmark::DoNotOptimize(item);
      }
    }
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(stream.size()));
}
BENCHMARK(BM_ReadStream)
    ->ArgName("chunk")
    ->Arg(1448)  // a TCP segment
    ->Arg(16 << 10)
    ->Arg(64 << 10)
    ->Arg(256 << 10)
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace postcopy::wire
