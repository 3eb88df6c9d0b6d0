// core/page_map.h, by one thread: what each step of a page's life costs in memory accesses.
#include <benchmark/benchmark.h>

#include "core/page_map.h"

namespace postcopy {
namespace {

constexpr uint64_t kPages = 256 << 10;  // 1 GiB of guest memory

MemoryLayout OneRegion() { return {{{"ram", kPages * kPageBytes}}}; }

// Pages spread over the region, each once: no two neighbours share a cache line for long.
PageAddress Spread(uint64_t i) {
  constexpr uint64_t kOddStep = 40503;
  return {{0}, {i * kOddStep % kPages}};
}

template <typename Setup, typename Step>
void OnEveryPage(benchmark::State& state, Setup set_up, Step step) {
  for (auto _ : state) {
    state.PauseTiming();
    auto map = std::make_unique<PageMap>(OneRegion());
    set_up(*map);
    state.ResumeTiming();
    for (uint64_t i = 0; i < kPages; ++i) step(*map, Spread(i));
    state.PauseTiming();
    map.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kPages));
}

void MarkAllPresent(PageMap& map) {
  for (uint64_t page = 0; page < kPages; ++page) {
    map.Claim({{0}, {page}});
    map.Finish({{0}, {page}}, true);
  }
}

void BM_PageMapClaimAndFinish(benchmark::State& state) {
  OnEveryPage(
      state, [](PageMap&) {},
      [](PageMap& map, PageAddress page) {
        benchmark::DoNotOptimize(map.Claim(page));
        benchmark::DoNotOptimize(map.Finish(page, true));
      });
}
BENCHMARK(BM_PageMapClaimAndFinish)->Unit(benchmark::kMillisecond);

// The copy that comes second.
void BM_PageMapClaimOfPresentPage(benchmark::State& state) {
  OnEveryPage(state, MarkAllPresent,
              [](PageMap& map, PageAddress page) { benchmark::DoNotOptimize(map.Claim(page)); });
}
BENCHMARK(BM_PageMapClaimOfPresentPage)->Unit(benchmark::kMillisecond);

void BM_PageMapMarkDemanded(benchmark::State& state) {
  OnEveryPage(
      state, [](PageMap&) {},
      [](PageMap& map, PageAddress page) { benchmark::DoNotOptimize(map.MarkDemanded(page)); });
}
BENCHMARK(BM_PageMapMarkDemanded)->Unit(benchmark::kMillisecond);

void BM_PageMapStateOf(benchmark::State& state) {
  OnEveryPage(state, MarkAllPresent,
              [](PageMap& map, PageAddress page) { benchmark::DoNotOptimize(map.StateOf(page)); });
}
BENCHMARK(BM_PageMapStateOf)->Unit(benchmark::kMillisecond);

// The whole map's grants, where stretches of 64 pages with data lie `holes` pages apart.
void BM_PageMapTakeUngrantedOverHoles(benchmark::State& state) {
  constexpr uint64_t kStretch = 64;
  const uint64_t holes = static_cast<uint64_t>(state.range(0));
  int64_t taken = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto map = std::make_unique<PageMap>(OneRegion());
    for (uint64_t page = kStretch; holes > 0 && page + holes <= kPages; page += kStretch + holes) {
      map->MarkEmpty({0}, {{page}, holes});
    }
    state.ResumeTiming();
    PageIndex from;
    for (;;) {
      const PageRange range = map->TakeUngranted({0}, from, {kPages}, kStretch);
      if (range.empty()) break;
      from = range.end();
      ++taken;
    }
    state.PauseTiming();
    map.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(taken);
}
BENCHMARK(BM_PageMapTakeUngrantedOverHoles)
    ->ArgName("holes")
    ->Arg(0)
    ->Arg(64)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace postcopy
