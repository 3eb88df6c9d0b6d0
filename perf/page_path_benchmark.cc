// What the page path costs without a VM: a page server on loopback, a userfaultfd of this process.
//
// Not responsible for comparing with others; figures of one run compare with figures of the same run
// only.
#include <benchmark/benchmark.h>

#include <array>
#include <filesystem>

#include "platform/durable_file.h"
#include "tests/engine/memory_fixture.h"

namespace postcopy {
namespace {

constexpr uint64_t kPages = 3 * 8192;  // 96 MiB, of which a third has content

Backing BackingOf(const benchmark::State& state) { return static_cast<Backing>(state.range(0)); }

// One thread touches pages in random order and nothing else moves: fault to wake, as the toucher
// feels it.
void BM_DemandFault(benchmark::State& state) {
  Source source(kPages);
  ArmedMemory memory(kPages * kPageBytes, BackingOf(state));
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  if (!engine.Start().ok()) return state.SkipWithError("engine does not start");
  std::vector<uint64_t> order(kPages);
  for (uint64_t page = 0; page < kPages; ++page) order[page] = page;
  std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
  size_t next = 0;
  for (auto _ : state) {
    const volatile std::byte* at = memory.memory() + order[next] * kPageBytes;
    benchmark::DoNotOptimize(*at);
    if (++next == order.size()) break;
  }
  state.counters["p99_us"] = engine.Figures().faults.p99_us;
}
BENCHMARK(BM_DemandFault)
    ->ArgName("backing")
    ->DenseRange(0, 2)
    ->Iterations(8000)
    ->Unit(benchmark::kMicrosecond)
    ->UseRealTime();

// The bulk alone, from the hole map to the last page.
void BM_Bulk(benchmark::State& state) {
  Source source(kPages);
  for (auto _ : state) {
    state.PauseTiming();
    auto memory = std::make_unique<ArmedMemory>(kPages * kPageBytes, BackingOf(state));
    auto engine = std::make_unique<Engine>(source.Connect(), memory->device(),
                                           std::vector<MappedRegion>{memory->region()});
    if (!engine->Start().ok()) return state.SkipWithError("engine does not start");
    state.ResumeTiming();
    engine->StartBulk();
    engine->GuestRuns();
    if (engine->WaitComplete(std::chrono::seconds(60)) != Engine::Wait::kComplete) {
      return state.SkipWithError("the memory did not arrive");
    }
    state.PauseTiming();
    engine.reset();
    memory.reset();
    state.ResumeTiming();
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * (kPages / 3) * kPageBytes));
}
BENCHMARK(BM_Bulk)->ArgName("backing")->DenseRange(0, 2)->Unit(benchmark::kMillisecond)->UseRealTime();

// A durable record, twice while the VM stands still (docs/decisions/0004).
void BM_Record(benchmark::State& state) {
  char folder[] = "/var/tmp/postcopy-record-XXXXXX";
  if (mkdtemp(folder) == nullptr) return state.SkipWithError("no folder");
  const std::string path = std::string(folder) + "/record";
  const std::string content(512, 'x');
  constexpr std::array<uint64_t, 2> kCopies{0, 4096};  // a record's line is there twice
  (void)WriteDurably(path, std::string(kCopies.back() + content.size(), 'x')).ok();
  const bool in_place = state.range(0) != 0;
  for (auto _ : state) {
    const auto written = in_place ? OverwriteDurably(path, content, kCopies)
                                  : WriteDurably(path, content);
    if (!written.ok()) state.SkipWithError(written.error().message.c_str());
  }
  std::filesystem::remove_all(folder);
}
BENCHMARK(BM_Record)->ArgName("in_place")->DenseRange(0, 1)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace postcopy

BENCHMARK_MAIN();
