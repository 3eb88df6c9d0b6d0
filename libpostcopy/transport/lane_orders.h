// What was asked for on one lane and has not been answered: a frame that answers none of it is never
// passed on.
//
// A lane either carries requests and the map, or grants. The asking side is called with the lane's
// send lock held, in the order in which frames leave; the answering side by the lane's receiver.
// Every call is O(1) and allocates only when more is open than ever before on this lane.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/units.h"
#include "platform/mutex.h"
#include "transport/page_transport.h"
#include "wire/page_protocol.h"

namespace postcopy {

class LaneOrders {
 public:
  // --- asking ------------------------------------------------------------------------------------

  // The number to send with the request `id` for `page`: no other open request of the lane has it,
  // whatever the ids are.
  uint32_t AddRequest(uint32_t id, PageAddress page) POSTCOPY_EXCLUDES(mutex_);
  // False: as many grants are open as may be.
  bool AddGrant(RegionId region, PageRange range);
  // False: the map was requested on this lane already.
  bool AddMap() { return !map_asked_.exchange(true, std::memory_order_relaxed); }

  // --- answering ---------------------------------------------------------------------------------

  // Ends the open request `number` for `page`; its id. Nothing: there is none.
  std::optional<uint32_t> TakeRequest(uint32_t number, PageAddress page) POSTCOPY_EXCLUDES(mutex_);
  // Takes `range` off the oldest open grant. False: it is not what comes next of that.
  bool TakeGranted(RegionId region, PageRange range);
  // False: the map was not requested, has come, or goes back behind what it has said.
  bool TakeMap(const wire::MapFields& map);

  // Nothing of it will be answered. REQUIRES: no other call at the time.
  void Clear() POSTCOPY_EXCLUDES(mutex_);

 private:
  struct Request {
    uint32_t id = 0;
    PageAddress page;
    bool open = false;
  };

  Mutex mutex_;
  std::vector<Request> requests_ POSTCOPY_GUARDED_BY(mutex_);
  std::vector<uint32_t> free_ POSTCOPY_GUARDED_BY(mutex_);

  // A ring. The asking side adds, the answering side takes; each release of a count pairs with the
  // acquire of the other side.
  std::array<wire::RangeFields, PageTransport::kMostGrants> grants_;
  std::atomic<size_t> added_{0};
  std::atomic<size_t> taken_{0};

  std::atomic<bool> map_asked_{false};
  // Of the answering side.
  PageAddress map_up_to_{};
  bool map_came_ = false;
};

}  // namespace postcopy
