// What guest RAM looks like: its regions by name and size, in an order that both sides share.
//
// Not responsible for: where a region is mapped or what backs it (engine/, server/).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/units.h"

namespace postcopy {

struct Region {
  std::string name;  // the VMM's own, e.g. QEMU's object id
  uint64_t size_bytes = 0;

  friend bool operator==(const Region&, const Region&) = default;
  uint64_t count_pages() const { return size_bytes / kPageBytes; }
};

struct MemoryLayout {
  std::vector<Region> regions;

  // Sum over all regions.
  uint64_t size_bytes() const;
  // True if `range` of `region` lies within the layout.
  bool Contains(RegionId region, PageRange range) const;
};

// Limits of a layout that comes from a peer.
inline constexpr size_t kMaxRegions = 64;
inline constexpr size_t kMaxRegionNameBytes = 255;
inline constexpr uint64_t kMaxRegionBytes = uint64_t{1} << 46;

// kInvalidArgument, naming the region, unless: 1..64 regions, names unique and of 1..255 bytes,
// sizes positive, page-aligned and at most 64 TiB.
Result<void> Validate(const MemoryLayout& layout);

// kMismatch, naming each region that differs, unless every region of `source` has one of the same
// name and size in `destination` and the other way round. The order may differ.
Result<void> CheckSameShape(const MemoryLayout& source, const MemoryLayout& destination);

}  // namespace postcopy
