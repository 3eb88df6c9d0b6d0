// Units of guest memory: pages, ranges of pages, and the regions (RAM blocks) that hold them.
//
// Not responsible for: what a region is called or how large it is (memory_layout.h).
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

namespace postcopy {

// The page size of the protocol, of the page-state map and of x86-64. Larger backing pages are a
// property of a region, counted in these.
inline constexpr uint64_t kPageBytes = 4096;
// The largest of these. x86-64's next size is 1 GiB: too much to fetch while a vCPU waits.
inline constexpr uint64_t kMaxHugePageBytes = uint64_t{2} << 20;

// Number of a page within its region, counted from the region's start.
struct PageIndex {
  uint64_t value = 0;

  friend auto operator<=>(PageIndex, PageIndex) = default;
  friend PageIndex operator+(PageIndex page, uint64_t pages) { return {page.value + pages}; }
  friend uint64_t operator-(PageIndex a, PageIndex b) { return a.value - b.value; }
  uint64_t offset_bytes() const { return value * kPageBytes; }
};

// Position of a RAM block in the session's MemoryLayout; equal on both sides of a session.
struct RegionId {
  uint32_t value = 0;
  friend auto operator<=>(RegionId, RegionId) = default;
};

// Pages [first, first + count_pages) of one region. May be empty.
struct PageRange {
  PageIndex first;
  uint64_t count_pages = 0;

  friend bool operator==(const PageRange&, const PageRange&) = default;
  PageIndex end() const { return first + count_pages; }
  uint64_t size_bytes() const { return count_pages * kPageBytes; }
  bool empty() const { return count_pages == 0; }
  bool contains(PageIndex page) const { return page >= first && page < end(); }
};

// A page of a session: which region, which page.
struct PageAddress {
  RegionId region;
  PageIndex page;
  friend auto operator<=>(const PageAddress&, const PageAddress&) = default;
};

}  // namespace postcopy
