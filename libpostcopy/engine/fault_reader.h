// Reads the kernel's events and decides what each needs: the first step of a fault's life.
//
// Never waits on an install: the kernel refuses to install while a discard is unread, so a reader
// that waited would wait for itself (and with it the VMM's main thread, which waits for the discard
// to be read). What it maps itself it tries once and tries again after the next events.
//
// Everything pending is read first; discards are applied before the faults of the same batch, since
// the two can be reported out of causal order.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "core/fault_trace.h"
#include "core/page_map.h"
#include "engine/fault_device.h"
#include "engine/fetcher.h"
#include "engine/precacher.h"

namespace postcopy {

// Told of a fault that could not be answered here and now, so that it has its page woken later.
class MapFailureObserver {
 public:
  virtual ~MapFailureObserver() = default;
  virtual void OnNotMapped(PageAddress page, int error) = 0;
};

class FaultReader {
 public:
  // `trace`, if any, is told of the faults that are not asked for; of the others the fetcher tells it.
  // Without `failures` a page that cannot be mapped is woken at once, and faults again.
  FaultReader(FaultDevice& device, PageMap& map, const std::vector<MappedRegion>& regions,
              Fetcher& fetcher, Precacher& precacher, FaultTrace* trace = nullptr,
              MapFailureObserver* failures = nullptr);

  // The reader's thread: returns when Stop() was called, or with an error when the VM is gone.
  Result<void> Run();
  // From any thread.
  void Stop();

 private:
  struct PendingFault {
    PageAddress page;
    bool minor;
    TimePoint read_at;
  };
  Result<void> DrainEvents();
  void ApplyDiscards();
  void HandleFault(const PendingFault& fault);
  // The same where the whole huge page is needed.
  void HandleHugePageFault(const PendingFault& fault);
  // Maps a page that needs nothing from the source, or keeps the fault: the kernel wants it tried again.
  void MapHere(const PendingFault& fault);
  // False: it must be tried again.
  bool TryMapHere(const PendingFault& fault);
  void TraceJoined(const PendingFault& fault);
  std::optional<PageAddress> Locate(uint64_t address) const;

  FaultDevice& device_;
  PageMap& map_;
  const std::vector<MappedRegion>& regions_;
  Fetcher& fetcher_;
  Precacher& precacher_;
  FaultTrace* const trace_;
  MapFailureObserver* const failures_;
  std::atomic<bool> stopping_{false};
  // Of the reader's thread; they keep their capacity.
  std::vector<FaultEvent> discards_;
  std::vector<PendingFault> faults_;
  std::vector<PendingFault> again_;
};

}  // namespace postcopy
