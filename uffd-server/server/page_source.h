// Where a page server's pages come from: the frozen RAM of a stopped VM, or a decorator that changes
// on purpose what another source says.
//
// Thread-safe: every lane of a session reads at the same time.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/memory_layout.h"
#include "core/result.h"
#include "core/units.h"
#include "platform/mutex.h"
#include "platform/unique_fd.h"

namespace postcopy {

class PageSource {
 public:
  virtual ~PageSource() = default;
  virtual const MemoryLayout& layout() const = 0;
  // Fills `to`, which is as long as `range`, with content; pages without data are zero. 0 or errno.
  // REQUIRES: the range lies within the layout.
  virtual int Read(RegionId region, PageRange range, std::span<std::byte> to) = 0;
  // The pages that have data, in ascending order, neighbours merged.
  virtual Result<std::vector<PageRange>> DataExtents(RegionId region) = 0;

  // The VM has stopped: remembers how much memory there is. Once, before anything is served.
  virtual void Freeze() {}
  // Whether memory of the region was freed since Freeze(). What reads as zero and has no data then
  // may have had some.
  virtual bool HasLost(RegionId) { return false; }
  // Whether the page has data, zeros included. True where that cannot be known.
  virtual bool HasData(PageAddress) { return true; }
};

// The RAM files of a VM on this host.
class RamFileSource final : public PageSource {
 public:
  struct RegionFile {
    UniqueFd file;
    uint64_t offset_bytes = 0;  // where the region begins in the file
  };
  // REQUIRES: as many files as regions.
  RamFileSource(MemoryLayout layout, std::vector<RegionFile> files);

  const MemoryLayout& layout() const override { return layout_; }
  int Read(RegionId region, PageRange range, std::span<std::byte> to) override;
  Result<std::vector<PageRange>> DataExtents(RegionId region) override;
  void Freeze() override;
  bool HasLost(RegionId region) override;
  // On hugetlbfs, which tells no holes: false once memory of the region was freed.
  bool HasData(PageAddress page) override;
  // What the regions' files had allocated at Freeze(), together; 0 before.
  uint64_t frozen_bytes() const;

 private:
  const MemoryLayout layout_;
  const std::vector<RegionFile> files_;
  std::vector<uint64_t> frozen_bytes_;  // of each region's file; empty before Freeze()
  Mutex seek_mutex_;  // SEEK_DATA moves the files' positions
};

// A fault plan: flips one bit of one byte of one page whose content looks random (as file content
// and checksummed memory do, and as unused memory does not): the first one that is read after
// `skip_pages` others. For tests of what notices it.
//
// The page is flipped each time it is read, and it is none that was read before: of the copies that
// several lanes may send of it the destination drops all but one, and that one is wrong, too.
class CorruptOneByte final : public PageSource {
 public:
  CorruptOneByte(std::shared_ptr<PageSource> source, uint64_t skip_pages);

  const MemoryLayout& layout() const override { return source_->layout(); }
  int Read(RegionId region, PageRange range, std::span<std::byte> to) override;
  Result<std::vector<PageRange>> DataExtents(RegionId region) override {
    return source_->DataExtents(region);
  }
  void Freeze() override { source_->Freeze(); }
  bool HasLost(RegionId region) override { return source_->HasLost(region); }
  bool HasData(PageAddress page) override { return source_->HasData(page); }

 private:
  // Whether this page, of this content, is the one to flip.
  bool Choose(PageAddress page, std::span<const std::byte> content);

  const std::shared_ptr<PageSource> source_;
  Mutex mutex_;
  uint64_t left_to_skip_ POSTCOPY_GUARDED_BY(mutex_);
  std::optional<PageAddress> chosen_ POSTCOPY_GUARDED_BY(mutex_);
  // By region and page: those read before one was chosen.
  std::vector<std::vector<bool>> read_ POSTCOPY_GUARDED_BY(mutex_);
};

}  // namespace postcopy
