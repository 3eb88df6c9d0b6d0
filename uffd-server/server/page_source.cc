#include "server/page_source.h"

#include <bitset>
#include <numeric>

#include "platform/ram_file.h"
#include "spdlog/spdlog.h"

namespace postcopy {
namespace {

// Of 256 byte values a page of code or text has fewer.
bool LooksRandom(std::span<const std::byte> page) {
  constexpr size_t kValues = 250;
  std::bitset<256> seen;
  for (const std::byte b : page) seen.set(static_cast<size_t>(b));
  return seen.count() >= kValues;
}

}  // namespace

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

void RamFileSource::Freeze() {
  frozen_bytes_.clear();
  for (const RegionFile& file : files_) {
    const auto bytes = QueryRamFileAllocated(file.file.get());
    frozen_bytes_.push_back(bytes.ok() ? *bytes : 0);
  }
}

uint64_t RamFileSource::frozen_bytes() const {
  return std::accumulate(frozen_bytes_.begin(), frozen_bytes_.end(), uint64_t{0});
}

bool RamFileSource::HasLost(RegionId region) {
  if (frozen_bytes_.empty()) return false;
  const auto now = QueryRamFileAllocated(files_[region.value].file.get());
  return !now.ok() || *now < frozen_bytes_[region.value];
}

bool RamFileSource::HasData(PageAddress page) {
  const RegionFile& file = files_[page.region.value];
  const auto kind = QueryRamFileKind(file.file.get());
  if (!kind.ok() || *kind != RamFileKind::kTmpfs) return !HasLost(page.region);
  const uint64_t at = file.offset_bytes + page.page.offset_bytes();
  MutexLock lock(seek_mutex_);
  const auto found = FindRamFileData(file.file.get(), at, at + kPageBytes);
  return found.ok() && found->has_value();
}

CorruptOneByte::CorruptOneByte(std::shared_ptr<PageSource> source, uint64_t skip_pages)
    : source_(std::move(source)), left_to_skip_(skip_pages) {
  for (const Region& region : source_->layout().regions) read_.emplace_back(region.count_pages());
}

int CorruptOneByte::Read(RegionId region, PageRange range, std::span<std::byte> to) {
  const int error = source_->Read(region, range, to);
  if (error != 0) return error;
  for (uint64_t i = 0; i < range.count_pages; ++i) {
    const auto content = to.subspan(i * kPageBytes, kPageBytes);
    if (Choose({region, range.first + i}, content)) content[kPageBytes / 2] ^= std::byte{0x10};
  }
  return 0;
}

bool CorruptOneByte::Choose(PageAddress page, std::span<const std::byte> content) {
  MutexLock lock(mutex_);
  if (chosen_.has_value()) return *chosen_ == page;
  std::vector<bool>& read = read_[page.region.value];
  if (read[page.page.value]) return false;
  read[page.page.value] = true;
  if (!LooksRandom(content)) return false;
  if (left_to_skip_ > 0) {
    --left_to_skip_;
    return false;
  }
  chosen_ = page;
  spdlog::warn("fault plan: a byte is flipped, region {} page {}",
               source_->layout().regions[page.region.value].name, page.page.value);
  return true;
}

}  // namespace postcopy
