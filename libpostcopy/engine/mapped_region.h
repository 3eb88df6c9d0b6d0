// Where a RAM block of the destination lies, as the engine installs into it.
#pragma once

#include <cstdint>

#include "core/result.h"
#include "core/units.h"

namespace postcopy {

// Where a region of the session lies: in the address space that faults, and in its RAM file.
struct MappedRegion {
  uint64_t address = 0;
  uint64_t size_bytes = 0;
  int ram_file = -1;  // borrowed; -1: anonymous memory
  uint64_t file_offset = 0;
  // Of the mapping, a multiple of kPageBytes. Where it is larger (hugetlbfs) the kernel takes whole
  // pages only: Copy(), Zero(), Poison() and Wake() are called with these, and ram_file is -1.
  uint64_t page_bytes = kPageBytes;

  bool file_backed() const { return ram_file >= 0; }
  bool has_huge_pages() const { return page_bytes != kPageBytes; }
  uint64_t AddressOf(PageIndex page) const { return address + page.offset_bytes(); }
  // The smallest range of whole pages of the mapping that holds `range`.
  PageRange WholePages(PageRange range) const {
    const uint64_t in_one = page_bytes / kPageBytes;
    const uint64_t first = range.first.value / in_one * in_one;
    const uint64_t end = (range.end().value + in_one - 1) / in_one * in_one;
    return {{first}, end - first};
  }
};

// The region of a mapping at `address`; `ram_file` is borrowed, -1 for anonymous memory. A file on
// hugetlbfs makes a region with huge pages, which need no file: the kernel copies into the mapping, of
// what the mapping has reserved. kUnsupported: its pages are larger than kMaxHugePageBytes.
// kInvalidArgument: the mapping is not of whole pages.
Result<MappedRegion> MakeMappedRegion(uint64_t address, uint64_t size_bytes, int ram_file,
                                      uint64_t file_offset);

}  // namespace postcopy
