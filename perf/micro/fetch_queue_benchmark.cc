// core/fetch_queue.h with `waiting` other requests in it.
#include <benchmark/benchmark.h>

#include "core/fetch_queue.h"

namespace postcopy {
namespace {

constexpr PageAddress kAsked{{0}, {1 << 20}};

FetchQueue WithOthers(const benchmark::State& state) {
  FetchQueue queue;
  for (int64_t i = 0; i < state.range(0); ++i) queue.Add({{0}, {static_cast<uint64_t>(i)}}, {});
  return queue;
}

// The answer to the request ends it.
void BM_FetchQueueAddAndTake(benchmark::State& state) {
  FetchQueue queue = WithOthers(state);
  for (auto _ : state) {
    const uint32_t id = queue.Add(kAsked, {});
    benchmark::DoNotOptimize(queue.Take(id, kAsked));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_FetchQueueAddAndTake)->ArgName("waiting")->Arg(0)->Arg(16)->Arg(256);

// Whoever has installed the page ends it, and knows no id: every slot is looked at.
void BM_FetchQueueAddAndTakePage(benchmark::State& state) {
  FetchQueue queue = WithOthers(state);
  for (auto _ : state) {
    queue.Add(kAsked, {});
    benchmark::DoNotOptimize(queue.TakePage(kAsked));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(BM_FetchQueueAddAndTakePage)->ArgName("waiting")->Arg(0)->Arg(16)->Arg(256);

}  // namespace
}  // namespace postcopy
