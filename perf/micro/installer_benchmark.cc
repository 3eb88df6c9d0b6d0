// engine/installer.h over a real userfaultfd, by backing and by pages installed at a time: claim,
// fill, map. Nobody waits for the pages. Time is that of `batch` pages.
//
// Needs root for userfaultfd, and for hugetlbfs 16 huge pages of 2 MiB (sysctl vm.nr_hugepages=16);
// a backing that can't be had is named as skipped.
#include <benchmark/benchmark.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/installer.h"
#include "tests/engine/memory_fixture.h"

namespace postcopy {
namespace {

constexpr uint64_t kInstalledPages = 8192;  // 32 MiB

class NobodyWaits final : public DemandObserver {
 public:
  void OnDemandServed(PageAddress) override {}
};

// Shared memory on hugetlbfs, armed.
class ArmedHugePages {
 public:
  // Nothing: there are not enough huge pages.
  static std::unique_ptr<ArmedHugePages> Make(uint64_t size_bytes) {
    UniqueFd file(memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2MB));
    if (!file.valid() || ftruncate(file.get(), static_cast<off_t>(size_bytes)) != 0) return nullptr;
    void* mapped = mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
    if (mapped == MAP_FAILED) return nullptr;
    std::unique_ptr<ArmedHugePages> memory(new ArmedHugePages(std::move(file), mapped, size_bytes));
    auto userfault = CreateUserfault(-1);
    auto waiter = Waiter::Create();
    if (!userfault.ok() || !waiter.ok() ||
        !RegisterFaults(userfault->get(), memory->region().address, size_bytes, FaultMode::kMissing)
             .ok()) {
      return nullptr;
    }
    memory->device_.emplace(std::move(*userfault), std::move(*waiter));
    return memory;
  }
  ~ArmedHugePages() { munmap(mapped_, size_bytes_); }

  MappedRegion region() const {
    return {reinterpret_cast<uint64_t>(mapped_), size_bytes_, -1, 0, kMaxHugePageBytes};
  }
  FaultDevice& device() { return *device_; }

 private:
  ArmedHugePages(UniqueFd file, void* mapped, uint64_t size_bytes)
      : file_(std::move(file)), mapped_(mapped), size_bytes_(size_bytes) {}

  UniqueFd file_;
  void* mapped_;
  uint64_t size_bytes_;
  std::optional<UserfaultDevice> device_;
};

// Installs memory after memory in batches; `make` gives the next one, or nothing.
template <typename Make>
void InstallBatches(benchmark::State& state, Make make) {
  const uint64_t batch = static_cast<uint64_t>(state.range(0));
  const std::vector<std::byte> content(batch * kPageBytes, std::byte{1});
  const MemoryLayout layout{{{"ram", kInstalledPages * kPageBytes}}};
  NobodyWaits nobody;
  decltype(make()) memory;
  std::optional<PageMap> map;
  std::vector<MappedRegion> regions;
  std::optional<Installer> installer;
  uint64_t next = kInstalledPages;
  for (auto _ : state) {
    if (next == kInstalledPages) {
      state.PauseTiming();
      installer.reset();
      memory.reset();  // before the next is made: huge pages are few
      memory = make();
      if (memory == nullptr) return state.SkipWithError("skipped: this memory can't be had");
      map.emplace(layout);
      regions = {memory->region()};
      installer.emplace(memory->device(), *map, regions, nobody);
      next = 0;
      state.ResumeTiming();
    }
    if (installer->Install({0}, {{next}, batch}, content) != Installer::Outcome::kDone) {
      return state.SkipWithError("the kernel refuses");
    }
    next += batch;
  }
  state.SetBytesProcessed(static_cast<int64_t>(state.iterations() * batch * kPageBytes));
}

void BM_Install(benchmark::State& state, Backing backing) {
  InstallBatches(state, [backing] {
    return std::make_unique<ArmedMemory>(kInstalledPages * kPageBytes, backing);
  });
}
void BM_InstallHugePages(benchmark::State& state) {
  InstallBatches(state, [] { return ArmedHugePages::Make(kInstalledPages * kPageBytes); });
}

void Batches(benchmark::internal::Benchmark* benchmark) {
  benchmark->ArgName("batch")->Arg(1)->Arg(16)->Arg(64)->Arg(512)->Unit(benchmark::kMicrosecond);
}
BENCHMARK_CAPTURE(BM_Install, file, Backing::kFile)->Apply(Batches);
BENCHMARK_CAPTURE(BM_Install, file_allocated, Backing::kFileAllocated)->Apply(Batches);
BENCHMARK_CAPTURE(BM_Install, anonymous, Backing::kAnonymous)->Apply(Batches);
BENCHMARK(BM_InstallHugePages)->Name("BM_Install/hugetlbfs")->Apply(Batches);

}  // namespace
}  // namespace postcopy
