// State of every page of a destination's guest RAM: what is here, what is on its way, what the
// guest has given up.
//
//   state        a fault is answered by            who leaves it, and when
//   kMissing     asking the source                 filler: Claim -> kFilling
//                                                  guest: Discard -> kDiscarded
//   kFilling     the filler, when it is done       filler: MarkWritten -> kWritten, Finish ->
//   kPresent
//                                                  or kDiscarded, Unclaim -> kMissing
//   kWritten     the same                          filler: Finish, Unclaim
//   kPresent     mapping it again, or with zero    guest: Discard -> kDiscarded
//                if its content was given up
//   kDiscarded   zero                              PresentAsZero -> kPresent
//   kPoisoned    nothing: the kernel fails it      nobody (Restore -> kPresent, if it was here)
//
// kPoisoned: its content was lost with the source. It counts as outstanding for ever, so memory
// that lacks a page is never complete.
//
// kWritten: its content is in the RAM file, whole, and it may be mapped. Whoever takes over from a
// filler that has ended may fill a page of kFilling again, but never one of kWritten, which the
// guest may have written to (Recover()). Memory that the kernel itself fills and maps in one step
// does without it.
//
// A discard that meets kFilling or kWritten changes nothing: the filler may be about to map the
// page, and taking it away again would lose what the guest writes once its discard has returned.
// The page then keeps the content it had before, which a balloon and free page reporting allow
// (docs/decisions/0002-discards-never-take-back.md). One that meets kPoisoned changes
// nothing here either: the page reads as zero then, and was lost all the same.
//
// One byte a page, each an atomic: a transition is one compare-and-swap, so threads that fill
// different pages never meet, and of two that want to fill one page exactly one wins. Beside the
// state a byte carries marks: demanded (a fault waits for it and has been counted), waited (a fault
// came while it was being filled), granted (asked for in bulk) and allocated (its page of the RAM
// file was allocated beforehand).
//
// Memory order: transitions are acquire-release, so whoever sees kPresent sees what the filler did
// before; page contents themselves are ordered by the kernel's page tables.
//
// The bytes may be the map's own, or memory that outlives the process (engine/keepsake.h): every
// transition is in them at once, so that another process finds them as this one left them.
//
// Thread-safe. No allocation after construction. Ranges must lie within the layout.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/memory_layout.h"
#include "core/units.h"

namespace postcopy {

enum class PageState : uint8_t { kMissing, kFilling, kPresent, kDiscarded, kWritten, kPoisoned };

class PageMap {
 public:
  // Every page is missing.
  explicit PageMap(const MemoryLayout& layout);
  // The same in `bytes`, one a page, region after region, which outlive the map and are zero, or
  // are what another map has left: then Recover() comes first. REQUIRES: as many bytes as pages.
  PageMap(const MemoryLayout& layout, std::span<std::atomic<uint8_t>> bytes);

  // Takes over what a map that has ended has left in the bytes: what it was filling is missing
  // again, what it had written is present, what was lost stays so, and nobody has asked for
  // anything. `unit_pages`, one a region: so many pages are mapped together or not at all; of those
  // that are not all here all are missing again. Before anything else, by one thread. Bytes that no
  // map writes count as missing.
  void Recover(std::span<const uint64_t> unit_pages);

  PageState StateOf(PageAddress page) const;
  // Somebody has claimed it and has not finished.
  bool IsBeingFilled(PageAddress page) const;
  uint64_t region_pages(RegionId region) const { return regions_[region.value].pages; }
  // Of all regions.
  uint64_t count_pages() const;
  // True if `range` of `region` lies within the layout: what may be passed to the rest.
  bool Contains(RegionId region, PageRange range) const {
    if (region.value >= regions_.size()) return false;
    const uint64_t pages = regions_[region.value].pages;
    return range.first.value <= pages && range.count_pages <= pages - range.first.value;
  }
  size_t count_regions() const { return regions_.size(); }
  // Pages that are missing, being filled or poisoned; 0 means that all memory is here, and nothing
  // will ever be asked for again.
  uint64_t outstanding_pages() const { return outstanding_.load(std::memory_order_acquire); }
  uint64_t discarded_pages() const { return discarded_.load(std::memory_order_relaxed); }
  uint64_t poisoned_pages() const { return poisoned_.load(std::memory_order_acquire); }

  // Moves `page` from kMissing to kFilling. False: it was not missing; the caller drops its data.
  bool Claim(PageAddress page);
  // The claimed page's content is in the RAM file; from now on it may be mapped.
  // REQUIRES: the caller's Claim() of this page returned true.
  void MarkWritten(PageAddress page);

  struct Finished {
    bool demanded = false;  // a fault was counted on the page and is now answered
    bool waited = false;    // a fault came during the fill: wake the page once more
  };
  // Ends a fill that Claim() began; `here`: the page is installed, else its content is gone for
  // good (the guest gave it up meanwhile) and it reads as zero.
  // REQUIRES: the caller's Claim() of this page returned true.
  Finished Finish(PageAddress page, bool here);
  // Ends a fill that Claim() began and that mapped nothing: the page is missing again.
  void Unclaim(PageAddress page);
  // The content of the page is lost: what is missing, or was claimed and not written, is poisoned.
  // False: it is neither, or was poisoned before.
  // REQUIRES: nobody fills the page.
  bool Poison(PageAddress page);
  // A poisoned page was present after all: who installed it had ended before it was noted.
  void Restore(PageAddress page);

  // The guest gave these pages up.
  void Discard(RegionId region, PageRange range);
  // The source has no data for these pages: those still missing read as zero.
  void MarkEmpty(RegionId region, PageRange range);
  // A zero page was installed where the state was kDiscarded.
  void PresentAsZero(PageAddress page);

  enum class Demand {
    kAskSource,  // missing, and this is the first fault on it
    kOnItsWay,   // asked for before, or being filled or poisoned: whoever does that wakes it
    kMapHere,    // present or discarded: nothing needs to be fetched
  };
  // Records that a fault waits for `page`.
  Demand MarkDemanded(PageAddress page);
  // Of a missing page: whether a fault waits for it, one that came while the page was being filled in
  // vain included. Such a one is forgotten: the caller has the page requested.
  bool TakeWaiter(PageAddress page);
  void MarkAllocated(RegionId region, PageRange range);
  bool IsAllocated(PageAddress page) const;

  // Takes for the bulk the first stretch of missing pages in [from, limit) that nobody has asked
  // for, at most `max_pages` long; marks them granted. An empty range: there is none.
  PageRange TakeUngranted(RegionId region, PageIndex from, PageIndex limit, uint64_t max_pages);
  // After a reconnect: what was granted and has not come may be granted again.
  void ForgetGrants();
  // The same of `range` only.
  void ForgetGrants(RegionId region, PageRange range);

 private:
  struct RegionBytes {
    uint64_t pages = 0;
    std::atomic<uint8_t>* bytes = nullptr;
  };
  // Of one unit of a region; how many of its pages are outstanding then. Counts the poisoned.
  uint64_t RecoverUnit(std::span<std::atomic<uint8_t>> unit);
  std::atomic<uint8_t>& At(PageAddress page) const {
    return regions_[page.region.value].bytes[page.page.value];
  }

  std::unique_ptr<std::atomic<uint8_t>[]> own_bytes_;  // null: somebody else's
  std::vector<RegionBytes> regions_;                   // fixed after construction
  std::atomic<uint64_t> outstanding_{0};
  std::atomic<uint64_t> discarded_{0};
  std::atomic<uint64_t> poisoned_{0};
};

}  // namespace postcopy
