// What the engine does with what its transport delivers: pages, runs, the hole map, lanes that break
// and come back. On the transport's threads.
#include <algorithm>

#include "engine/engine.h"

namespace postcopy {

void Engine::OnPage(uint32_t id, PageAddress page, wire::Encoding encoding,
                    std::span<const std::byte> content) {
  if (!CheckInside(page.region, {page.page, 1})) return;
  if (encoding == wire::Encoding::kZero) zero_pages_.fetch_add(1, std::memory_order_relaxed);
  demand_bytes_.fetch_add(content.size(), std::memory_order_relaxed);
  if (const auto waited = fetcher_.Waited(id, page)) precacher_.OnRoundTrip(*waited);
  Note(installer_.Install(page.region, {page.page, 1}, content), page.region, {page.page, 1});
  // Being filled by another thread, its huge page not whole yet, or not installed and to be requested
  // again: then the wait goes on.
  const PageState state = map_.StateOf(page);
  if (state != PageState::kMissing && !map_.IsBeingFilled(page)) fetcher_.Answered(id, page);
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
  Note(installer_.Install(region, range, content), region, range);
  precacher_.OnArrived(lane, range);
  CheckComplete();
}

void Engine::OnUnreadable(std::optional<size_t> lane, RegionId region, PageRange range,
                          const Error& cause) {
  if (!CheckInside(region, range)) return;
  retrier_.OnFailed(region, range, cause);
  if (lane.has_value()) precacher_.OnArrived(*lane, range);
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
    map_wanted_since_ = std::chrono::steady_clock::now();
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

void Engine::Note(Installer::Outcome outcome, RegionId region, PageRange range) {
  switch (outcome) {
    case Installer::Outcome::kDone:
      retrier_.OnInstalled();
      break;
    case Installer::Outcome::kVmGone:
      Fail({ErrorCode::kUnavailable, "install guest memory: the VM's process is gone"});
      break;
    case Installer::Outcome::kFailed:
      retrier_.OnFailed(region, regions_[region.value].WholePages(range),
                        ErrnoError(installer_.error(), "install guest memory"));
      break;
  }
}

}  // namespace postcopy
