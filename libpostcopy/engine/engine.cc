#include "engine/engine.h"

#include <algorithm>
#include <array>

#include "engine/poisoner.h"

namespace postcopy {
namespace {

// The names do not matter to a PageMap.
MemoryLayout SizesOf(const std::vector<MappedRegion>& regions) {
  MemoryLayout sizes;
  for (const MappedRegion& region : regions) sizes.regions.push_back({"", region.size_bytes});
  return sizes;
}

// Of our own regions, never of what a peer says there is: its numbers index this map.
PageMap MakePageMap(const std::vector<MappedRegion>& regions,
                    std::span<std::atomic<uint8_t>> bytes) {
  const MemoryLayout sizes = SizesOf(regions);
  const bool fits = bytes.size() == sizes.size_bytes() / kPageBytes;
  return fits ? PageMap(sizes, bytes) : PageMap(sizes);
}

// What keeps an engine from being started: its parts speak of different memory.
std::optional<Error> FindMismatch(const MemoryLayout& source,
                                  const std::vector<MappedRegion>& regions,
                                  size_t count_page_bytes) {
  if (source.regions.size() != regions.size()) {
    return Error{ErrorCode::kMismatch,
                 "page server: it describes " + std::to_string(source.regions.size()) +
                     " RAM blocks, the VM has " + std::to_string(regions.size())};
  }
  for (size_t i = 0; i < regions.size(); ++i) {
    if (source.regions[i].size_bytes == regions[i].size_bytes) continue;
    return Error{ErrorCode::kMismatch,
                 "page server: it describes RAM block " + source.regions[i].name + " with " +
                     std::to_string(source.regions[i].size_bytes) + " bytes, the VM has " +
                     std::to_string(regions[i].size_bytes)};
  }
  const uint64_t pages = SizesOf(regions).size_bytes() / kPageBytes;
  if (count_page_bytes != 0 && count_page_bytes != pages) {
    return Error{ErrorCode::kInvalidArgument,
                 "page states: " + std::to_string(count_page_bytes) + " of " +
                     std::to_string(pages) + " pages"};
  }
  return std::nullopt;
}

}  // namespace

Engine::Engine(std::unique_ptr<PageTransport> transport, FaultDevice& device,
               std::vector<MappedRegion> regions, const EngineOptions& options)
    : regions_(std::move(regions)),
      transport_(std::move(transport)),
      device_(device),
      trace_(options.trace),
      takes_up_(options.takes_up),
      mismatch_(FindMismatch(transport_->layout(), regions_, options.page_bytes.size())),
      map_(MakePageMap(regions_, options.page_bytes)),
      fetcher_(*transport_, trace_),
      precacher_(map_, fetcher_, *transport_),
      installer_(device_, map_, regions_, fetcher_),
      retrier_(device_, map_, regions_, fetcher_, precacher_),
      reader_(device_, map_, regions_, fetcher_, precacher_, trace_, &retrier_),
      urgent_up_(!takes_up_),
      bulk_up_(!takes_up_) {
  if (!takes_up_) return;
  std::vector<uint64_t> unit_pages;
  for (const MappedRegion& region : regions_) unit_pages.push_back(region.page_bytes / kPageBytes);
  map_.Recover(unit_pages);
}

Engine::~Engine() { Stop(); }

void Engine::MarkAllocated(RegionId region, PageRange range) {
  if (map_.Contains(region, range)) map_.MarkAllocated(region, range);
}

Result<void> Engine::Start() {
  if (mismatch_.has_value()) return *mismatch_;
  if (trace_ != nullptr) trace_->NoteStart(std::chrono::steady_clock::now());
  auto reader = QuietThread::Start("pc-faults", [this] {
    const auto ended = reader_.Run();
    if (!ended.ok()) Fail(ended.error());
  });
  if (!reader.ok()) return reader.error();
  reader_thread_.emplace(std::move(*reader));
  auto retrying = retrier_.Start();
  if (!retrying.ok()) return retrying;
  auto started = transport_->Start(*this);
  if (started.ok() && takes_up_) WakeEveryone();
  return started;
}

void Engine::WakeEveryone() {
  for (const MappedRegion& region : regions_) {
    device_.Wake(region, {{0}, region.size_bytes / kPageBytes});
  }
}

void Engine::AskForMap() {
  {
    MutexLock lock(mutex_);
    if (std::exchange(map_wanted_, true)) return;
    map_wanted_since_ = std::chrono::steady_clock::now();
    if (!urgent_up_) return;  // OnUrgentRestored() asks for it
  }
  transport_->RequestMap();
}

void Engine::StartBulk() {
  AskForMap();
  {
    MutexLock lock(mutex_);
    if (std::exchange(bulk_wanted_, true)) return;
    if (!map_known_ || !bulk_up_) return;  // OnMap() or OnBulkRestored() begins
  }
  precacher_.Start();
}

void Engine::Fail(const Error& cause) {
  MutexLock lock(mutex_);
  if (!failure_.has_value()) failure_ = cause;
  changed_.NotifyAll();
}

void Engine::CheckComplete() {
  if (map_.outstanding_pages() != 0) return;
  MutexLock lock(mutex_);
  complete_ = true;
  changed_.NotifyAll();
}

Engine::Wait Engine::WaitComplete(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  MutexLock lock(mutex_);
  for (;;) {
    // The last outstanding page may have been given up by the guest: the event reader, which learns
    // of it, takes no lock and so notifies nobody; hence the look at least every kLookAgain.
    constexpr std::chrono::milliseconds kLookAgain{20};
    if (complete_ || map_.outstanding_pages() == 0) return Wait::kComplete;
    if (stopped_) return Wait::kStopped;
    if (failure_.has_value()) return Wait::kFailed;
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= std::chrono::nanoseconds(0)) return Wait::kTimeout;
    changed_.WaitFor(mutex_, std::min<std::chrono::nanoseconds>(left, kLookAgain));
  }
}

std::optional<Error> Engine::failure() {
  MutexLock lock(mutex_);
  return failure_;
}

std::optional<Interruption> Engine::interruption() {
  MutexLock lock(mutex_);
  return interruption_;
}

std::optional<TimePoint> Engine::map_awaited_since() {
  MutexLock lock(mutex_);
  if (!map_wanted_ || map_known_) return std::nullopt;
  return map_wanted_since_;
}

Result<uint64_t> Engine::PoisonMissing() {
  if (!device_.CanPoison()) {
    return Error{ErrorCode::kUnsupported,
                 "poison guest memory: this kernel has no UFFDIO_POISON (Linux 6.6 or later)"};
  }
  // Held all the while: the reader lives until it is done.
  MutexLock stopping(stop_mutex_);
  if (!reader_thread_.has_value()) {
    return Error{ErrorCode::kUnavailable, "poison guest memory: the engine has ended"};
  }
  // Installs that have begun end first, which may need the reader; nothing fills a page afterwards.
  // What is claimed then is of huge pages that are not whole.
  transport_->Stop();
  const auto poisoned = PoisonWhatIsMissing(device_, map_, regions_);
  if (!poisoned.ok()) return poisoned.error();
  return map_.poisoned_pages();
}

Result<void> Engine::Finish() {
  MutexLock stopping(stop_mutex_);
  EndTransport();
  // While the reader still reads: whoever gives memory up waits in the kernel until that is read.
  Result<void> outcome;
  for (const MappedRegion& region : regions_) {
    auto unregistered = device_.Unregister(region);
    if (unregistered.ok() || !outcome.ok()) continue;
    // Memory that was unplugged meanwhile. What of such a region may be registered still ends with
    // the userfaultfd's last descriptor.
    if (unregistered.error().code == ErrorCode::kInvalidArgument) continue;
    outcome = std::move(unregistered);
  }
  EndReader();
  DropEvents();
  return outcome;
}

void Engine::DropEvents() {
  std::array<FaultEvent, 64> events;
  for (;;) {
    const auto count = device_.ReadEvents(events);
    if (!count.ok() || *count == 0) return;
  }
}

void Engine::Stop() {
  // Held all the while: whoever comes second returns when it is done, too.
  MutexLock stopping(stop_mutex_);
  EndTransport();
  // The reader last: an install that waits for a discard to be read needs it.
  EndReader();
}

void Engine::EndTransport() {
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    changed_.NotifyAll();
  }
  installer_.Stop();
  transport_->Stop();
  retrier_.Stop();
}

void Engine::EndReader() {
  if (reader_thread_.has_value()) {
    reader_.Stop();
    reader_thread_->Join();
    reader_thread_.reset();
    fetcher_.TraceUnanswered();
  }
}

EngineFigures Engine::Figures() {
  EngineFigures figures;
  figures.faults = fetcher_.Figures();
  figures.ram_bytes = map_.count_pages() * kPageBytes;
  figures.demand_bytes = demand_bytes_.load(std::memory_order_relaxed);
  figures.bulk_bytes = bulk_bytes_.load(std::memory_order_relaxed);
  figures.zero_pages = zero_pages_.load(std::memory_order_relaxed);
  figures.discarded_pages = map_.discarded_pages();
  figures.missing_pages = map_.outstanding_pages();
  MutexLock lock(mutex_);
  figures.interruptions = interruptions_;
  if (map_known_) {
    figures.data_bytes = data_pages_.load(std::memory_order_relaxed) * kPageBytes;
    figures.present_bytes = figures.data_bytes - map_.outstanding_pages() * kPageBytes;
  }
  return figures;
}

}  // namespace postcopy
