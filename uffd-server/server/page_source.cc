#include "server/page_source.h"

#include <algorithm>
#include <bitset>

#include "platform/ram_file.h"

namespace postcopy {

RamFileSource::RamFileSource(MemoryLayout layout, std::vector<RegionFile> files)
    : layout_(std::move(layout)), files_(std::move(files)) {}

int RamFileSource::Read(RegionId region, PageRange range, std::span<std::byte> to) {
  const RegionFile& file = files_[region.value];
  return ReadRamFile(file.file.get(), file.offset_bytes + range.first.offset_bytes(), to);
}

Result<std::vector<PageRange>> RamFileSource::DataExtents(RegionId region) {
  const RegionFile& file = files_[region.value];
  const uint64_t end = file.offset_bytes + layout_.regions[region.value].size_bytes;
  std::vector<PageRange> extents;
  MutexLock lock(seek_mutex_);
  for (uint64_t at = file.offset_bytes; at < end;) {
    const auto found = FindRamFileData(file.file.get(), at, end);
    if (!found.ok()) return found.error();
    if (!found->has_value()) break;
    const FileExtent& extent = **found;
    extents.push_back({{(extent.offset - file.offset_bytes) / kPageBytes},
                       extent.size_bytes / kPageBytes});
    at = extent.offset + extent.size_bytes;
  }
  return extents;
}

int CorruptOneByte::Read(RegionId region, PageRange range, std::span<std::byte> to) {
  const int error = source_->Read(region, range, to);
  if (error != 0) return error;
  for (size_t at = 0; at < to.size() && left_to_skip_.load() >= 0; at += kPageBytes) {
    std::bitset<256> seen;
    for (const std::byte b : to.subspan(at, kPageBytes)) seen.set(static_cast<size_t>(b));
    constexpr size_t kLooksRandom = 250;  // of 256 byte values; code and text have fewer
    if (seen.count() < kLooksRandom) continue;
    if (left_to_skip_.fetch_sub(1) == 0) to[at + kPageBytes / 2] ^= std::byte{0x10};
  }
  return 0;
}

}  // namespace postcopy
