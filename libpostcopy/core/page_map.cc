#include "core/page_map.h"

namespace postcopy {
namespace {

constexpr uint8_t kStateMask = 0x07;
constexpr uint8_t kWaited = 0x10;
constexpr uint8_t kGranted = 0x20;
constexpr uint8_t kAllocated = 0x40;
constexpr uint8_t kDemanded = 0x80;

PageState StateIn(uint8_t byte) { return static_cast<PageState>(byte & kStateMask); }

uint8_t WithState(uint8_t byte, PageState state) {
  return static_cast<uint8_t>((byte & ~kStateMask) | static_cast<uint8_t>(state));
}

// Applies `change` until no other thread has interfered. `change` returns the new byte; returning
// the same byte ends without a write. Returns the byte before.
template <typename Change>
uint8_t Update(std::atomic<uint8_t>& cell, Change change) {
  uint8_t before = cell.load(std::memory_order_acquire);
  for (;;) {
    const uint8_t after = change(before);
    if (after == before) return before;
    if (cell.compare_exchange_weak(before, after, std::memory_order_acq_rel,
                                   std::memory_order_acquire)) {
      return before;
    }
  }
}

}  // namespace

PageMap::PageMap(const MemoryLayout& layout, std::span<std::atomic<uint8_t>> bytes) {
  for (const Region& region : layout.regions) {
    regions_.push_back({region.count_pages(), bytes.data()});
    bytes = bytes.subspan(region.count_pages());
  }
  outstanding_.store(layout.size_bytes() / kPageBytes, std::memory_order_release);
}

PageMap::PageMap(const MemoryLayout& layout)
    // Value-initialised: every page starts kMissing without a mark.
    : own_bytes_(std::make_unique<std::atomic<uint8_t>[]>(layout.size_bytes() / kPageBytes)) {
  std::atomic<uint8_t>* bytes = own_bytes_.get();
  for (const Region& region : layout.regions) {
    regions_.push_back({region.count_pages(), bytes});
    bytes += region.count_pages();
  }
  outstanding_.store(layout.size_bytes() / kPageBytes, std::memory_order_release);
}

uint64_t PageMap::count_pages() const {
  uint64_t sum = 0;
  for (const RegionBytes& region : regions_) sum += region.pages;
  return sum;
}

void PageMap::Recover(std::span<const uint64_t> unit_pages) {
  uint64_t outstanding = 0;
  for (size_t i = 0; i < regions_.size(); ++i) {
    for (uint64_t page = 0; page < regions_[i].pages; page += unit_pages[i]) {
      outstanding += RecoverUnit({regions_[i].bytes + page, unit_pages[i]});
    }
  }
  outstanding_.store(outstanding, std::memory_order_release);
}

uint64_t PageMap::RecoverUnit(std::span<std::atomic<uint8_t>> unit) {
  uint64_t outstanding = 0;
  uint64_t poisoned = 0;
  for (std::atomic<uint8_t>& cell : unit) {
    const uint8_t byte = cell.load(std::memory_order_relaxed);
    PageState state = PageState::kMissing;
    switch (StateIn(byte)) {
      case PageState::kPresent:
      case PageState::kWritten:
        state = PageState::kPresent;
        break;
      case PageState::kDiscarded:
        state = PageState::kDiscarded;
        break;
      case PageState::kPoisoned:
        state = PageState::kPoisoned;
        break;
      case PageState::kMissing:
      case PageState::kFilling:
        break;
    }
    if (state == PageState::kMissing || state == PageState::kPoisoned) ++outstanding;
    if (state == PageState::kPoisoned) ++poisoned;
    cell.store(WithState(byte & kAllocated, state), std::memory_order_relaxed);
  }
  if (outstanding == 0 || outstanding == unit.size()) {
    poisoned_.fetch_add(poisoned, std::memory_order_acq_rel);
    return outstanding;
  }
  for (std::atomic<uint8_t>& cell : unit) {
    cell.store(WithState(cell.load(std::memory_order_relaxed), PageState::kMissing),
               std::memory_order_relaxed);
  }
  return unit.size();
}

PageState PageMap::StateOf(PageAddress page) const {
  return StateIn(At(page).load(std::memory_order_acquire));
}

bool PageMap::IsBeingFilled(PageAddress page) const {
  const PageState state = StateOf(page);
  return state == PageState::kFilling || state == PageState::kWritten;
}

bool PageMap::Claim(PageAddress page) {
  const uint8_t before = Update(At(page), [](uint8_t byte) {
    return StateIn(byte) == PageState::kMissing ? WithState(byte, PageState::kFilling) : byte;
  });
  return StateIn(before) == PageState::kMissing;
}

void PageMap::MarkWritten(PageAddress page) {
  Update(At(page), [](uint8_t byte) { return WithState(byte, PageState::kWritten); });
}

PageMap::Finished PageMap::Finish(PageAddress page, bool here) {
  const uint8_t before = Update(At(page), [&](uint8_t byte) {
    return static_cast<uint8_t>(WithState(byte, here ? PageState::kPresent : PageState::kDiscarded) &
                                ~(kDemanded | kWaited));
  });
  outstanding_.fetch_sub(1, std::memory_order_acq_rel);
  return {(before & kDemanded) != 0, (before & kWaited) != 0};
}

void PageMap::Unclaim(PageAddress page) {
  Update(At(page), [](uint8_t byte) { return WithState(byte, PageState::kMissing); });
}

bool PageMap::Poison(PageAddress page) {
  const auto lost = [](uint8_t byte) {
    const PageState state = StateIn(byte);
    return state == PageState::kMissing || state == PageState::kFilling;
  };
  const uint8_t before = Update(At(page), [&](uint8_t byte) {
    return lost(byte) ? WithState(byte, PageState::kPoisoned) : byte;
  });
  if (lost(before)) poisoned_.fetch_add(1, std::memory_order_acq_rel);
  return lost(before);
}

void PageMap::Restore(PageAddress page) {
  const uint8_t before = Update(At(page), [](uint8_t byte) {
    return StateIn(byte) == PageState::kPoisoned ? WithState(byte, PageState::kPresent) : byte;
  });
  if (StateIn(before) != PageState::kPoisoned) return;
  poisoned_.fetch_sub(1, std::memory_order_acq_rel);
  outstanding_.fetch_sub(1, std::memory_order_acq_rel);
}

void PageMap::Discard(RegionId region, PageRange range) {
  uint64_t no_longer_outstanding = 0;
  for (PageIndex page = range.first; page < range.end(); page = page + 1) {
    const uint8_t before = Update(At({region, page}), [](uint8_t byte) {
      const PageState state = StateIn(byte);
      const bool stays = state == PageState::kFilling || state == PageState::kWritten ||
                         state == PageState::kPoisoned;
      return stays ? byte : WithState(byte, PageState::kDiscarded);
    });
    if (StateIn(before) == PageState::kMissing) ++no_longer_outstanding;
  }
  outstanding_.fetch_sub(no_longer_outstanding, std::memory_order_acq_rel);
  discarded_.fetch_add(range.count_pages, std::memory_order_relaxed);
}

void PageMap::MarkEmpty(RegionId region, PageRange range) {
  uint64_t no_longer_outstanding = 0;
  for (PageIndex page = range.first; page < range.end(); page = page + 1) {
    const uint8_t before = Update(At({region, page}), [](uint8_t byte) {
      return StateIn(byte) == PageState::kMissing ? WithState(byte, PageState::kDiscarded) : byte;
    });
    if (StateIn(before) == PageState::kMissing) ++no_longer_outstanding;
  }
  outstanding_.fetch_sub(no_longer_outstanding, std::memory_order_acq_rel);
}

void PageMap::PresentAsZero(PageAddress page) {
  Update(At(page), [](uint8_t byte) {
    return StateIn(byte) == PageState::kDiscarded ? WithState(byte, PageState::kPresent) : byte;
  });
}

PageMap::Demand PageMap::MarkDemanded(PageAddress page) {
  const uint8_t before = Update(At(page), [](uint8_t byte) {
    switch (StateIn(byte)) {
      case PageState::kMissing: return static_cast<uint8_t>(byte | kDemanded);
      case PageState::kFilling:
      case PageState::kWritten:
        return static_cast<uint8_t>(byte | kWaited);
      case PageState::kPresent:
      case PageState::kDiscarded:
      case PageState::kPoisoned:
        return byte;
    }
    return byte;
  });
  switch (StateIn(before)) {
    case PageState::kMissing:
      return (before & kDemanded) == 0 ? Demand::kAskSource : Demand::kOnItsWay;
    case PageState::kFilling:
    case PageState::kWritten:
    case PageState::kPoisoned:
      return Demand::kOnItsWay;
    case PageState::kPresent:
    case PageState::kDiscarded: break;
  }
  return Demand::kMapHere;
}

bool PageMap::TakeWaiter(PageAddress page) {
  const uint8_t before = Update(At(page), [](uint8_t byte) {
    return StateIn(byte) == PageState::kMissing ? static_cast<uint8_t>(byte & ~kWaited) : byte;
  });
  return StateIn(before) == PageState::kMissing && (before & (kWaited | kDemanded)) != 0;
}

void PageMap::MarkAllocated(RegionId region, PageRange range) {
  for (PageIndex page = range.first; page < range.end(); page = page + 1) {
    At({region, page}).fetch_or(kAllocated, std::memory_order_acq_rel);
  }
}

bool PageMap::IsAllocated(PageAddress page) const {
  return (At(page).load(std::memory_order_acquire) & kAllocated) != 0;
}

PageRange PageMap::TakeUngranted(RegionId region, PageIndex from, PageIndex limit,
                                 uint64_t max_pages) {
  const auto wanted = [](uint8_t byte) {
    return StateIn(byte) == PageState::kMissing && (byte & (kGranted | kDemanded)) == 0;
  };
  const auto take = [&](PageIndex page) {
    return wanted(Update(At({region, page}), [&](uint8_t byte) {
      return wanted(byte) ? static_cast<uint8_t>(byte | kGranted) : byte;
    }));
  };
  while (from < limit && !take(from)) from = from + 1;
  if (from >= limit) return {limit, 0};
  PageRange taken{from, 1};
  while (taken.count_pages < max_pages && taken.end() < limit && take(taken.end())) {
    ++taken.count_pages;
  }
  return taken;
}

void PageMap::ForgetGrants() {
  for (uint32_t region = 0; region < regions_.size(); ++region) {
    ForgetGrants({region}, {{0}, regions_[region].pages});
  }
}

void PageMap::ForgetGrants(RegionId region, PageRange range) {
  for (PageIndex page = range.first; page < range.end(); page = page + 1) {
    std::atomic<uint8_t>& cell = At({region, page});
    if ((cell.load(std::memory_order_relaxed) & kGranted) == 0) continue;
    cell.fetch_and(static_cast<uint8_t>(~kGranted), std::memory_order_acq_rel);
  }
}

}  // namespace postcopy
