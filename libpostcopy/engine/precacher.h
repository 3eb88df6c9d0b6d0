// Keeps the bulk going: grants ranges in the scheduler's order, as many bytes as the window allows.
//
// Has no thread of its own: the bulk lanes' threads call OnArrived() and so trigger the next grants.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "core/grant_scheduler.h"
#include "core/grant_window.h"
#include "engine/fetcher.h"
#include "platform/mutex.h"
#include "transport/page_transport.h"

namespace postcopy {

class Precacher {
 public:
  // Pages granted at a time: one RUN of the protocol, so that the order can change often.
  static constexpr uint64_t kGrantPages = wire::kMaxRunPages;

  Precacher(PageMap& map, Fetcher& fetcher, PageTransport& transport);

  // The first grants, on every lane.
  void Start() POSTCOPY_EXCLUDES(mutex_);
  // Grants anew, on every lane: nothing that was granted before will come, and the map has forgotten it.
  void Restart() POSTCOPY_EXCLUDES(mutex_);
  // Grants nothing until Resume(): what comes could not be used.
  void Pause() POSTCOPY_EXCLUDES(mutex_);
  void Resume() POSTCOPY_EXCLUDES(mutex_);
  // These pages came in vain: they may be granted again, as the next in address order.
  void GrantAgain(RegionId region, PageRange range) POSTCOPY_EXCLUDES(mutex_);
  // The guest runs from now on.
  void GuestRuns() POSTCOPY_EXCLUDES(mutex_);
  // Brings everything as fast as the link carries it, even where the guest waits longer for it.
  void Hurry() POSTCOPY_EXCLUDES(mutex_);
  // The guest waits for this page: its surroundings come next, at once if there is room.
  void OnFault(PageAddress page) POSTCOPY_EXCLUDES(mutex_);
  // A single page was answered after so long.
  void OnRoundTrip(std::chrono::nanoseconds time) POSTCOPY_EXCLUDES(mutex_);
  // `range` of a grant on `lane` has come and is dealt with.
  void OnArrived(size_t lane, PageRange range) POSTCOPY_EXCLUDES(mutex_);

 private:
  struct LaneGrants {
    // Grants in the order they were sent, which is the order of their answers.
    struct Sent {
      uint64_t pages;
      GrantWindow::Sent window;
    };
    std::vector<Sent> sent;  // ring of fixed size
    size_t oldest = 0;
    size_t count = 0;
  };
  void GrantMore(size_t first_lane) POSTCOPY_EXCLUDES(mutex_);

  PageMap& map_;
  Fetcher& fetcher_;
  PageTransport& transport_;
  Mutex mutex_;
  GrantScheduler scheduler_ POSTCOPY_GUARDED_BY(mutex_);
  bool started_ POSTCOPY_GUARDED_BY(mutex_) = false;  // before, the source's map has not come
  bool paused_ POSTCOPY_GUARDED_BY(mutex_) = false;
  GrantWindow window_ POSTCOPY_GUARDED_BY(mutex_);
  std::vector<LaneGrants> lanes_ POSTCOPY_GUARDED_BY(mutex_);
};

}  // namespace postcopy
