// The kernel's side of post-copy as the engine sees it: events in, pages installed, waiters woken.
//
// Implemented over userfaultfd (userfault_device.h), and by a fake in tests. Calls report and
// decide nothing; what InstallResult says is described in platform/userfault.h. All calls are
// thread-safe; Wait() and ReadEvents() are called by one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/mapped_region.h"
#include "platform/userfault.h"

namespace postcopy {

class FaultDevice {
 public:
  virtual ~FaultDevice() = default;

  // --- the event reader's ------------------------------------------------------------------------

  // Blocks until events can be read (true) or WakeUp() was called (false).
  virtual bool Wait() = 0;
  virtual void WakeUp() = 0;
  // As ReadFaultEvents().
  virtual Result<size_t> ReadEvents(std::span<FaultEvent> events) = 0;

  // --- installing --------------------------------------------------------------------------------

  // Anonymous memory: copies content to missing pages.
  virtual InstallResult Copy(const MappedRegion& region, PageIndex first,
                             std::span<const std::byte> content) = 0;
  // RAM file: writes content into its page cache. 0 or errno.
  virtual int WriteFile(const MappedRegion& region, PageIndex first,
                        std::span<const std::byte> content) = 0;
  // RAM file: maps pages that the page cache has.
  virtual InstallResult Continue(const MappedRegion& region, PageRange range) = 0;
  // Either: makes missing pages read as zero.
  virtual InstallResult Zero(const MappedRegion& region, PageRange range) = 0;
  // Makes missing pages fail for whoever touches them. REQUIRES: CanPoison().
  virtual InstallResult Poison(const MappedRegion& region, PageRange range) = 0;
  // Whether the kernel can do that.
  virtual bool CanPoison() = 0;
  virtual void Wake(const MappedRegion& region, PageRange range) = 0;
  // Ends the reporting of faults; wakes everyone.
  virtual Result<void> Unregister(const MappedRegion& region) = 0;
};

}  // namespace postcopy
