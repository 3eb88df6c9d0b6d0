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
      reader_(device_, map_, regions_, fetcher_, precacher_, trace_),
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

void Engine::OnPage(uint32_t id, PageAddress page, wire::Encoding encoding,
                    std::span<const std::byte> content) {
  if (!CheckInside(page.region, {page.page, 1})) return;
  if (encoding == wire::Encoding::kZero) zero_pages_.fetch_add(1, std::memory_order_relaxed);
  demand_bytes_.fetch_add(content.size(), std::memory_order_relaxed);
  if (const auto waited = fetcher_.Waited(id, page)) precacher_.OnRoundTrip(*waited);
  Note(installer_.Install(page.region, {page.page, 1}, content));
  // Somebody else is filling it, or its huge page is not whole yet: who ends that says so.
  if (!map_.IsBeingFilled(page)) fetcher_.Answered(id, page);
  // The guest gave the page up while it was on its way: it looks again and gets zero.
  if (map_.StateOf(page) == PageState::kDiscarded) {
    const MappedRegion& region = regions_[page.region.value];
    device_.Wake(region, region.WholePages({page.page, 1}));
  }
  CheckComplete();
}

void Engine::OnRun(size_t lane, RegionId region, PageRange range, wire::Encoding encoding,
                   std::span<const std::byte> content) {
  if (!CheckInside(region, range)) return;
  if (encoding == wire::Encoding::kZero) {
    zero_pages_.fetch_add(range.count_pages, std::memory_order_relaxed);
  }
  bulk_bytes_.fetch_add(content.size(), std::memory_order_relaxed);
  Note(installer_.Install(region, range, content));
  precacher_.OnArrived(lane, range);
  CheckComplete();
}

bool Engine::CheckInside(RegionId region, PageRange range) {
  if (map_.Contains(region, range)) return true;
  Fail({ErrorCode::kProtocol, "page server: it speaks of pages outside guest RAM"});
  return false;
}

void Engine::OnMap(const wire::MapFields& map) {
  {
    // Asked for twice, by who began the bulk just when the lanes were made anew.
    MutexLock lock(mutex_);
    if (map_known_) return;
  }
  // What lies between two extents, or between two regions' extents, is empty at the source.
  const auto mark_empty_up_to = [this](RegionId region, PageIndex end) {
    while (mapped_up_to_.region < region) {
      const uint64_t pages = map_.region_pages(mapped_up_to_.region);
      MarkEmpty(mapped_up_to_.region, {mapped_up_to_.page, pages - mapped_up_to_.page.value});
      mapped_up_to_ = {{mapped_up_to_.region.value + 1}, {0}};
    }
    if (region.value < map_.count_regions() && mapped_up_to_.page < end) {
      MarkEmpty(region, {mapped_up_to_.page, end - mapped_up_to_.page});
      mapped_up_to_.page = end;
    }
  };
  for (const PageRange& extent : map.extents) {
    if (!CheckInside(map.region, extent)) return;
    if (PageAddress{map.region, extent.first} < named_up_to_) {
      Fail({ErrorCode::kProtocol, "page server: its hole map is out of order"});
      return;
    }
    named_up_to_ = {map.region, extent.end()};
    // A huge page comes whole, holes and all.
    const PageIndex end = regions_[map.region.value].WholePages(extent).end();
    const PageIndex first = regions_[map.region.value].WholePages(extent).first;
    mark_empty_up_to(map.region, first);
    if (mapped_up_to_.page >= end) continue;
    const PageIndex from = std::max(first, mapped_up_to_.page);
    data_pages_.fetch_add(end - from, std::memory_order_relaxed);
    if (trace_ != nullptr) trace_->NoteData(map.region, {from, end - from});
    mapped_up_to_.page = end;
  }
  if (!map.last) return;
  mark_empty_up_to({static_cast<uint32_t>(map_.count_regions())}, {0});
  bool begin;
  {
    MutexLock lock(mutex_);
    map_known_ = true;
    begin = bulk_wanted_ && bulk_up_;  // otherwise StartBulk() or OnBulkRestored() begins
  }
  if (begin) precacher_.Start();
  CheckComplete();
}

void Engine::MarkEmpty(RegionId region, PageRange range) {
  const MappedRegion& mapped = regions_[region.value];
  if (!mapped.has_huge_pages()) return map_.MarkEmpty(region, range);
  // One of which a part is staged already becomes whole by its other parts. Nobody else claims pages
  // before the map is there, so the look holds.
  while (!range.empty()) {
    const PageRange one = mapped.WholePages({range.first, 1});
    bool begun = false;
    for (PageIndex page = one.first; page < one.end(); page = page + 1) {
      begun |= map_.IsBeingFilled({region, page});
    }
    if (begun) {
      data_pages_.fetch_add(one.count_pages, std::memory_order_relaxed);
    } else {
      map_.MarkEmpty(region, one);
    }
    range = {one.end(), range.end() - one.end()};
  }
}

void Engine::OnInterrupted(const Error& cause) {
  MutexLock lock(mutex_);
  urgent_up_ = bulk_up_ = false;
  if (!interruption_.has_value()) {
    interruption_ = Interruption{cause, std::chrono::steady_clock::now()};
    ++interruptions_;
  }
  interruption_->cause = cause;
  if (map_known_) return;
  // It will come from its beginning; what it has said so far stays true.
  named_up_to_ = mapped_up_to_ = {};
  if (trace_ != nullptr) trace_->ForgetData();
  data_pages_.store(0, std::memory_order_relaxed);
}

void Engine::OnUrgentRestored() {
  // The guest first.
  for (const auto& [id, page] : fetcher_.Waiting()) {
    transport_->Request(id, page);
    AskAlongAgain(page);
  }
  {
    MutexLock lock(mutex_);
    urgent_up_ = true;
    if (!map_wanted_ || map_known_) return;
  }
  transport_->RequestMap();
}

void Engine::AskAlongAgain(PageAddress page) {
  const MappedRegion& region = regions_[page.region.value];
  if (!region.has_huge_pages()) return;
  const PageRange pages = region.WholePages({page.page, 1});
  for (PageIndex other = pages.first; other < pages.end(); other = other + 1) {
    const PageAddress along{page.region, other};
    if (along != page && map_.StateOf(along) == PageState::kMissing) fetcher_.AskAlong(along);
  }
}

void Engine::OnBulkRestored() {
  {
    MutexLock lock(mutex_);
    bulk_up_ = true;
    interruption_.reset();
    if (!map_known_ || !bulk_wanted_) return;  // the bulk has not begun
  }
  map_.ForgetGrants();
  precacher_.Restart();
}

void Engine::Note(Installer::Outcome outcome) {
  switch (outcome) {
    case Installer::Outcome::kDone: break;
    case Installer::Outcome::kVmGone:
      Fail({ErrorCode::kUnavailable, "install guest memory: the VM's process is gone"});
      break;
    case Installer::Outcome::kFailed:
      Fail(ErrnoError(installer_.error(), "install guest memory"));
      break;
  }
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
