#include "core/memory_layout.h"

#include <algorithm>
#include <set>

namespace postcopy {
namespace {

const Region* Find(const MemoryLayout& layout, const std::string& name) {
  const auto found = std::find_if(layout.regions.begin(), layout.regions.end(),
                                  [&](const Region& region) { return region.name == name; });
  return found == layout.regions.end() ? nullptr : &*found;
}

void AppendDifference(std::string& text, const std::string& difference) {
  if (!text.empty()) text += "; ";
  text += difference;
}

}  // namespace

uint64_t MemoryLayout::size_bytes() const {
  uint64_t sum = 0;
  for (const Region& region : regions) sum += region.size_bytes;
  return sum;
}

bool MemoryLayout::Contains(RegionId region, PageRange range) const {
  if (region.value >= regions.size()) return false;
  const uint64_t pages = regions[region.value].count_pages();
  return range.first.value <= pages && range.count_pages <= pages - range.first.value;
}

Result<void> Validate(const MemoryLayout& layout) {
  const auto refuse = [](std::string cause) {
    return Error{ErrorCode::kInvalidArgument, "memory layout: " + std::move(cause)};
  };
  if (layout.regions.empty()) return refuse("no region");
  if (layout.regions.size() > kMaxRegions) {
    return refuse(std::to_string(layout.regions.size()) + " regions, at most " +
                  std::to_string(kMaxRegions) + " are possible");
  }
  std::set<std::string> names;
  for (const Region& region : layout.regions) {
    if (region.name.empty() || region.name.size() > kMaxRegionNameBytes) {
      return refuse("a region name of " + std::to_string(region.name.size()) + " bytes");
    }
    if (!names.insert(region.name).second) return refuse("two regions named " + region.name);
    if (region.size_bytes == 0 || region.size_bytes % kPageBytes != 0 ||
        region.size_bytes > kMaxRegionBytes) {
      return refuse("region " + region.name + " has a size of " +
                    std::to_string(region.size_bytes) + " bytes");
    }
  }
  return {};
}

Result<void> CheckSameShape(const MemoryLayout& source, const MemoryLayout& destination) {
  std::string differences;
  for (const Region& region : source.regions) {
    const Region* twin = Find(destination, region.name);
    if (twin == nullptr) {
      AppendDifference(differences, "RAM block " + region.name + " exists at the source only");
    } else if (twin->size_bytes != region.size_bytes) {
      AppendDifference(differences, "RAM block " + region.name + " has " +
                                        std::to_string(region.size_bytes) +
                                        " bytes at the source and " +
                                        std::to_string(twin->size_bytes) + " at the destination");
    }
  }
  for (const Region& region : destination.regions) {
    if (Find(source, region.name) == nullptr) {
      AppendDifference(differences, "RAM block " + region.name + " exists at the destination only");
    }
  }
  if (differences.empty()) return {};
  return Error{ErrorCode::kMismatch, differences};
}

}  // namespace postcopy
