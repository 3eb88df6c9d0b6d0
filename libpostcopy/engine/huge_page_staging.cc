#include "engine/huge_page_staging.h"

#include <algorithm>
#include <cstring>

namespace postcopy {

HugePageStaging::HugePageStaging(const std::vector<MappedRegion>& regions) : regions_(regions) {
  for (const MappedRegion& region : regions) {
    pages_.emplace_back(region.has_huge_pages() ? region.size_bytes / region.page_bytes : 0);
  }
}

HugePageStaging::HugePage& HugePageStaging::PageAt(RegionId region, PageIndex page) {
  return pages_[region.value][page.offset_bytes() / regions_[region.value].page_bytes];
}

HugePageStaging::Buffer HugePageStaging::Add(RegionId region, PageRange range,
                                             std::span<const std::byte> content) {
  const uint64_t page_bytes = regions_[region.value].page_bytes;
  HugePage& page = PageAt(region, range.first);
  std::byte* buffer;
  {
    MutexLock lock(mutex_);
    if (page.buffer == nullptr) {
      const auto fits = std::find_if(free_.begin(), free_.end(), [&](const auto& spare) {
        return spare.first == page_bytes;
      });
      if (fits == free_.end()) {
        page.buffer = Buffer(new std::byte[page_bytes]);
      } else {
        page.buffer = std::move(fits->second);
        free_.erase(fits);
      }
    }
    buffer = page.buffer.get();
  }
  std::byte* const at = buffer + range.first.offset_bytes() % page_bytes;
  if (content.empty()) {
    std::memset(at, 0, range.size_bytes());
  } else {
    std::memcpy(at, content.data(), range.size_bytes());
  }
  const uint64_t filled =
      page.filled.fetch_add(range.count_pages, std::memory_order_acq_rel) + range.count_pages;
  if (filled * kPageBytes < page_bytes) return nullptr;
  page.filled.store(0, std::memory_order_relaxed);
  MutexLock lock(mutex_);
  return std::move(page.buffer);
}

void HugePageStaging::Recycle(RegionId region, Buffer buffer) {
  MutexLock lock(mutex_);
  free_.emplace_back(regions_[region.value].page_bytes, std::move(buffer));
}

}  // namespace postcopy
