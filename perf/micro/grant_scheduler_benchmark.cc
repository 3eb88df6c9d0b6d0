// core/grant_scheduler.h: the grants of a whole guest, with a fault before every so many of them.
#include <benchmark/benchmark.h>

#include <random>

#include "core/grant_scheduler.h"

namespace postcopy {
namespace {

constexpr uint64_t kGuestPages = 256 << 10;  // 1 GiB
constexpr uint64_t kPagesAGrant = 64;

// `every` 0: without faults.
void BM_GrantSchedulerNext(benchmark::State& state) {
  const int64_t every = state.range(0);
  std::mt19937_64 random(1);
  int64_t grants = 0;
  for (auto _ : state) {
    state.PauseTiming();
    auto map = std::make_unique<PageMap>(MemoryLayout{{{"ram", kGuestPages * kPageBytes}}});
    GrantScheduler scheduler(*map);
    state.ResumeTiming();
    while (const auto grant = scheduler.Next(kPagesAGrant)) {
      ++grants;
      if (every > 0 && grants % every == 0) scheduler.OnFault({{0}, {random() % kGuestPages}});
    }
    state.PauseTiming();
    map.reset();
    state.ResumeTiming();
  }
  state.SetItemsProcessed(grants);
}
BENCHMARK(BM_GrantSchedulerNext)
    ->ArgName("fault_every")
    ->Arg(0)
    ->Arg(1)
    ->Arg(16)
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace postcopy
