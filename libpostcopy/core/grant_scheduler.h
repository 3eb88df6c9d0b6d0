// Which pages the bulk brings next: around recent faults first, then the rest in address order.
//
// A fault at page p makes the pages behind it, and a few before it, the next to be granted: guests
// touch memory in neighbourhoods (Hines and Gopalan, "Post-copy based live virtual machine
// migration using adaptive pre-paging and dynamic self-ballooning", VEE 2009). Newer
// faults come before older ones.
//
// Pure; not thread-safe (the precacher holds a lock around it). The PageMap must outlive it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "core/page_map.h"
#include "core/units.h"

namespace postcopy {

struct Grant {
  RegionId region;
  PageRange range;
};

class GrantScheduler {
 public:
  static constexpr uint64_t kPagesBehindFault = 24;
  static constexpr uint64_t kPagesBeforeFault = 8;
  static constexpr size_t kRememberedFaults = 64;

  explicit GrantScheduler(PageMap& map) : map_(map) {}

  // The guest waited for this page.
  void OnFault(PageAddress page);
  // The next range to grant, at most `max_pages` long; its pages count as granted from now on.
  // Nothing: every missing page has been granted.
  std::optional<Grant> Next(uint64_t max_pages);
  // Starts again at the first page: after a reconnect, when the map has forgotten its grants.
  void Rewind();
  // `page` may be granted again: goes back to it, if it has passed it.
  void RewindTo(PageAddress page);

 private:
  std::optional<Grant> NextAroundFault(uint64_t max_pages);

  PageMap& map_;
  std::array<PageAddress, kRememberedFaults> faults_;  // ring; the newest is at newest_ - 1
  uint64_t newest_ = 0;
  uint64_t remembered_ = 0;
  PageAddress cursor_{};
};

}  // namespace postcopy
