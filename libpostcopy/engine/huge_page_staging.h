// Collects the content of huge pages, which comes in small pages, until one is whole.
//
// Only then can the kernel take it. A huge page begun has a buffer of its own size here, so what is
// begun at the same time has to be bounded by who asks for pages: by demand the huge pages that are
// waited for, in bulk what is granted at a time, in address order.
//
// Thread-safe. Every small page is passed once (its claim in the PageMap sees to that).
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "engine/mapped_region.h"
#include "platform/mutex.h"

namespace postcopy {

class HugePageStaging {
 public:
  explicit HugePageStaging(const std::vector<MappedRegion>& regions);

  using Buffer = std::unique_ptr<std::byte[]>;

  // Adds the pages of `range`, which lies within one huge page of a region that has them; no content:
  // zeros. When the huge page is whole with it: its content, which is the caller's then; should its
  // pages be missing again, they are collected anew. Null otherwise.
  Buffer Add(RegionId region, PageRange range, std::span<const std::byte> content)
      POSTCOPY_EXCLUDES(mutex_);
  // Takes back a buffer of a region that Add() gave, to be used again.
  void Recycle(RegionId region, Buffer buffer) POSTCOPY_EXCLUDES(mutex_);

 private:
  struct HugePage {
    Buffer buffer;  // guarded by mutex_; what it points to is shared by who fills parts of it
    // Small pages that are there. Each release by who has written them, so that who adds the last one
    // acquires the content.
    std::atomic<uint64_t> filled{0};
  };
  HugePage& PageAt(RegionId region, PageIndex page);

  const std::vector<MappedRegion>& regions_;
  std::vector<std::vector<HugePage>> pages_;  // by region; empty for one without huge pages
  Mutex mutex_;
  std::vector<std::pair<uint64_t, Buffer>> free_ POSTCOPY_GUARDED_BY(mutex_);  // with their sizes
};

}  // namespace postcopy
