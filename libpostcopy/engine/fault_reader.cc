#include "engine/fault_reader.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

namespace postcopy {

FaultReader::FaultReader(FaultDevice& device, PageMap& map,
                         const std::vector<MappedRegion>& regions, Fetcher& fetcher,
                         Precacher& precacher, FaultTrace* trace, MapFailureObserver* failures)
    : device_(device),
      map_(map),
      regions_(regions),
      fetcher_(fetcher),
      precacher_(precacher),
      trace_(trace),
      failures_(failures) {
  constexpr size_t kExpectedAtOnce = 256;
  discards_.reserve(kExpectedAtOnce);
  faults_.reserve(kExpectedAtOnce);
  again_.reserve(kExpectedAtOnce);
}

void FaultReader::Stop() {
  stopping_.store(true, std::memory_order_release);  // pairs with the load in Run()
  device_.WakeUp();
}

Result<void> FaultReader::Run() {
  while (!stopping_.load(std::memory_order_acquire)) {
    // Faults that the kernel wants tried again must not wait for the next event.
    if (again_.empty()) {
      device_.Wait();
    } else {
      std::this_thread::yield();
    }
    auto drained = DrainEvents();
    if (!drained.ok()) return drained;
    ApplyDiscards();
    faults_.insert(faults_.end(), again_.begin(), again_.end());
    again_.clear();
    for (const PendingFault& fault : faults_) HandleFault(fault);
    faults_.clear();
  }
  return {};
}

Result<void> FaultReader::DrainEvents() {
  std::array<FaultEvent, 64> events;
  for (;;) {
    const auto count = device_.ReadEvents(events);
    if (!count.ok()) return count.error();
    if (*count == 0) return {};
    const TimePoint now = std::chrono::steady_clock::now();
    for (size_t i = 0; i < *count; ++i) {
      const FaultEvent& event = events[i];
      switch (event.kind) {
        case FaultEvent::Kind::kMissing:
        case FaultEvent::Kind::kMinor:
          if (const auto page = Locate(event.address)) {
            faults_.push_back({*page, event.kind == FaultEvent::Kind::kMinor, now});
          }
          break;
        case FaultEvent::Kind::kRemove:
        case FaultEvent::Kind::kUnmap: discards_.push_back(event); break;
        case FaultEvent::Kind::kOther: break;
      }
    }
  }
}

std::optional<PageAddress> FaultReader::Locate(uint64_t address) const {
  for (uint32_t i = 0; i < regions_.size(); ++i) {
    if (address >= regions_[i].address && address - regions_[i].address < regions_[i].size_bytes) {
      return PageAddress{{i}, {(address - regions_[i].address) / kPageBytes}};
    }
  }
  return std::nullopt;
}

void FaultReader::ApplyDiscards() {
  for (const FaultEvent& event : discards_) {
    for (uint32_t i = 0; i < regions_.size(); ++i) {
      const MappedRegion& region = regions_[i];
      const uint64_t start = std::max(event.address, region.address);
      const uint64_t end = std::min(event.end_address, region.address + region.size_bytes);
      // Of a huge page a part may be staged already: it keeps the content it had before, as a page
      // does that is being filled.
      if (start >= end || region.has_huge_pages()) continue;
      map_.Discard({i}, {{(start - region.address) / kPageBytes}, (end - start) / kPageBytes});
    }
  }
  discards_.clear();
}

void FaultReader::HandleFault(const PendingFault& fault) {
  if (regions_[fault.page.region.value].has_huge_pages()) return HandleHugePageFault(fault);
  // The page cache has no page where one was allocated beforehand: the guest gave it up, and the
  // event that says so may still be on its way.
  if (!fault.minor && map_.IsAllocated(fault.page) &&
      map_.StateOf(fault.page) == PageState::kMissing) {
    map_.Discard(fault.page.region, {fault.page.page, 1});
  }
  switch (map_.MarkDemanded(fault.page)) {
    case PageMap::Demand::kAskSource:
      fetcher_.Ask(fault.page, fault.read_at);
      precacher_.OnFault(fault.page);
      break;
    case PageMap::Demand::kOnItsWay: TraceJoined(fault); break;
    case PageMap::Demand::kMapHere: MapHere(fault); break;
  }
}

// Its surroundings are not sent for: every huge page begun costs a buffer until it is whole.
void FaultReader::HandleHugePageFault(const PendingFault& fault) {
  const PageRange pages = regions_[fault.page.region.value].WholePages({fault.page.page, 1});
  bool here = true;
  bool asked = false;
  for (PageIndex page = pages.first; page < pages.end(); page = page + 1) {
    const PageAddress address{fault.page.region, page};
    switch (map_.MarkDemanded(address)) {
      case PageMap::Demand::kAskSource:
        if (asked) {
          fetcher_.AskAlong(address);
        } else {
          fetcher_.Ask(address, fault.read_at);
        }
        asked = true;
        here = false;
        break;
      case PageMap::Demand::kOnItsWay: here = false; break;
      case PageMap::Demand::kMapHere: break;
    }
  }
  if (here) {
    MapHere(fault);
  } else if (!asked) {
    TraceJoined(fault);
  }
}

void FaultReader::TraceJoined(const PendingFault& fault) {
  if (trace_ == nullptr) return;
  trace_->Add({fault.read_at, fault.page, FaultKind::kJoined, std::nullopt});
}

void FaultReader::MapHere(const PendingFault& fault) {
  const bool present = map_.StateOf(fault.page) == PageState::kPresent;
  if (!TryMapHere(fault)) {
    again_.push_back(fault);
  } else if (trace_ != nullptr) {
    trace_->Add({fault.read_at, fault.page, present ? FaultKind::kPresent : FaultKind::kZero,
                 std::chrono::steady_clock::now() - fault.read_at});
  }
}

bool FaultReader::TryMapHere(const PendingFault& fault) {
  const MappedRegion& region = regions_[fault.page.region.value];
  const PageRange page = region.WholePages({fault.page.page, 1});
  InstallResult result =
      fault.minor ? device_.Continue(region, page) : device_.Zero(region, page);
  // The page may have come to or gone from the page cache since the fault was reported.
  if (fault.minor && result.outcome == InstallOutcome::kNotFilled) {
    result = device_.Zero(region, page);
  } else if (!fault.minor && region.file_backed() &&
             result.outcome == InstallOutcome::kAlreadyPresent) {
    result = device_.Continue(region, page);
  }
  switch (result.outcome) {
    case InstallOutcome::kInstalled: map_.PresentAsZero(fault.page); return true;
    case InstallOutcome::kRetry: return false;
    case InstallOutcome::kAlreadyPresent:
    case InstallOutcome::kNotFilled:
    case InstallOutcome::kRangeGone:
    case InstallOutcome::kProcessGone: device_.Wake(region, page); return true;
    case InstallOutcome::kFailed:
      if (failures_ == nullptr) {
        device_.Wake(region, page);
      } else {
        failures_->OnNotMapped(fault.page, result.error);
      }
      return true;
  }
  return true;
}

}  // namespace postcopy
