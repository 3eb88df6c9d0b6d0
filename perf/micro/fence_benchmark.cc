// attach/fencing.h over memory whose pages are all present: laying the fence, which must fit into the time
// in which the destination loads the device state, and lifting it. `moved`: as it is; `in_place`: by
// mprotect(), what is left where pages cannot be moved. A new mapping each time.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <optional>

#include "attach/fencing.h"
#include "platform/guest_mapping.h"
#include "platform/unique_fd.h"

namespace postcopy {
namespace {

class PresentMemory {
 public:
  explicit PresentMemory(uint64_t size_bytes) : file_(memfd_create("ram", MFD_CLOEXEC)) {
    block_.id = 1;
    block_.ram_file = file_.get();
    block_.block.kind = wire::BlockKind::kSharedFile;
    block_.block.size_bytes = size_bytes;
    if (ftruncate(file_.get(), static_cast<off_t>(size_bytes)) != 0) return;
    void* mapped = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                        file_.get(), 0);
    if (mapped != MAP_FAILED) block_.block.address = reinterpret_cast<uint64_t>(mapped);
  }
  ~PresentMemory() {
    if (valid()) munmap(reinterpret_cast<void*>(block_.block.address), block_.block.size_bytes);
  }
  PresentMemory(const PresentMemory&) = delete;
  PresentMemory& operator=(const PresentMemory&) = delete;

  bool valid() const { return block_.block.address != 0; }
  const BlockTable::Block& block() const { return block_; }

 private:
  UniqueFd file_;
  BlockTable::Block block_;
};

enum class Way { kMoved, kInPlace };
enum class Step { kLay, kLift };

void BM_Fence(benchmark::State& state, Way way, Step step) {
  const uint64_t size_bytes = static_cast<uint64_t>(state.range(0)) << 20;
  for (auto _ : state) {
    state.PauseTiming();
    {
      PresentMemory memory(size_bytes);
      if (!memory.valid()) return state.SkipWithError("skipped: not enough memory");
      const std::array blocks{memory.block()};
      const wire::RegisterBlock& block = memory.block().block;
      if (step == Step::kLay) state.ResumeTiming();
      std::optional<Result<Fence>> fence;
      bool done;
      if (way == Way::kMoved) {
        fence.emplace(Fence::Lay(blocks));
        done = fence->ok();
      } else {
        done = ForbidAccess(block.address, block.size_bytes).ok();
      }
      step == Step::kLay ? state.PauseTiming() : state.ResumeTiming();
      if (way == Way::kMoved) {
        done = done && (*fence)->Lift(blocks).ok();
      } else {
        done = done && AllowAccess(block.address, block.size_bytes).ok();
      }
      if (step == Step::kLift) state.PauseTiming();
      if (!done) return state.SkipWithError("the kernel refuses");
    }
    state.ResumeTiming();
  }
}

void Sizes(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgName("mib")->Arg(512)->Arg(4096)->Iterations(5)->Unit(benchmark::kMillisecond);
}
BENCHMARK_CAPTURE(BM_Fence, lay_moved, Way::kMoved, Step::kLay)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Fence, lay_in_place, Way::kInPlace, Step::kLay)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Fence, lift_moved, Way::kMoved, Step::kLift)->Apply(Sizes);
BENCHMARK_CAPTURE(BM_Fence, lift_in_place, Way::kInPlace, Step::kLift)->Apply(Sizes);

}  // namespace
}  // namespace postcopy
