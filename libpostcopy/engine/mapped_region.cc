#include "engine/mapped_region.h"

#include <string>

#include "platform/ram_file.h"

namespace postcopy {

Result<MappedRegion> MakeMappedRegion(uint64_t address, uint64_t size_bytes, int ram_file,
                                      uint64_t file_offset) {
  MappedRegion region{address, size_bytes, ram_file, file_offset};
  if (!region.file_backed()) return region;
  const auto page_bytes = QueryRamFilePageBytes(ram_file);
  if (!page_bytes.ok()) return page_bytes.error();
  if (*page_bytes == kPageBytes) return region;
  if (*page_bytes > kMaxHugePageBytes) {
    return Error{ErrorCode::kUnsupported, "guest RAM has pages of " + std::to_string(*page_bytes) +
                                              " bytes; 2 MiB is the largest that is supported"};
  }
  if ((address | size_bytes | file_offset) % *page_bytes != 0) {
    return Error{ErrorCode::kInvalidArgument,
                 "guest RAM is not mapped in whole pages of " + std::to_string(*page_bytes) +
                     " bytes"};
  }
  region.ram_file = -1;
  region.page_bytes = *page_bytes;
  return region;
}

}  // namespace postcopy
