// Puts page content where the guest sees it: claims the pages, fills them, maps them, wakes waiters.
//
// The third step of a fault's life, and all of the bulk's. Not responsible for asking (fetcher,
// precacher) nor for faults on pages that are here (fault_reader.cc).
//
// Thread-safe: any number of transport threads install at once; a page is filled by the one that
// claims it, the others drop their copy. May wait for the event reader (while a discard is unread
// the kernel refuses to install), so the event reader never calls it.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "core/page_map.h"
#include "engine/fault_device.h"
#include "engine/huge_page_staging.h"
#include "wire/page_protocol.h"

namespace postcopy {

// Told when a page that a fault was counted on has been woken. Called by the installing thread.
class DemandObserver {
 public:
  virtual ~DemandObserver() = default;
  virtual void OnDemandServed(PageAddress page) = 0;
};

class Installer {
 public:
  Installer(FaultDevice& device, PageMap& map, const std::vector<MappedRegion>& regions,
            DemandObserver& observer)
      : device_(device), map_(map), regions_(regions), observer_(observer), staging_(regions) {}

  // Installs those of the pages that are still missing. `content` holds them all, or is empty for
  // zeros. Parts of a huge page are kept, and stay claimed, until it is whole. kVmGone: the VM's
  // process has exited. kFailed: the kernel could not (no memory, no space), or an unexpected error;
  // error() tells which. In both cases what it did not install is missing again, a huge page as a
  // whole, but for parts of other huge pages.
  enum class Outcome { kDone, kVmGone, kFailed };
  Outcome Install(RegionId region, PageRange range, std::span<const std::byte> content);

  int error() const { return error_.load(std::memory_order_relaxed); }
  // Install() gives up waiting for the event reader: the engine ends.
  void Stop() { stopping_.store(true, std::memory_order_relaxed); }

 private:
  Outcome InstallClaimed(RegionId region, PageRange range, std::span<const std::byte> content);
  // The same for the pages of a region with huge pages.
  Outcome StageClaimed(RegionId region, PageRange range, std::span<const std::byte> content);
  // Maps claimed and filled pages; finishes each. A range of which the kernel says that it is gone is
  // tried again page by page: it says so of all if one page is, or if two mappings meet in it.
  Outcome MapFilled(RegionId region, PageRange range, std::span<const std::byte> content);
  // The guest gave these claimed pages up after they were filled, or unplugged the memory.
  void Drop(RegionId region, PageRange range);
  void FinishPages(RegionId region, PageRange range, bool here);
  void UnclaimPages(RegionId region, PageRange range);

  FaultDevice& device_;
  PageMap& map_;
  const std::vector<MappedRegion>& regions_;
  DemandObserver& observer_;
  HugePageStaging staging_;
  std::atomic<int> error_{0};
  std::atomic<bool> stopping_{false};
};

}  // namespace postcopy
