// Asks the source for pages that the guest waits for, once each, and measures how long it waits.
//
// The second step of a fault's life. Called by the event reader (Ask) and by the installer when the
// page has been woken; both take one short lock.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/fault_trace.h"
#include "core/fetch_queue.h"
#include "core/histogram.h"
#include "engine/installer.h"
#include "platform/mutex.h"
#include "transport/page_transport.h"

namespace postcopy {

struct FaultFigures {
  uint64_t faults = 0;  // pages asked for by demand; a huge page is one
  uint64_t served = 0;  // of these, answered
  double p50_us = 0;    // event read to wake
  double p99_us = 0;
  double p999_us = 0;
  double max_us = 0;
};

class Fetcher final : public DemandObserver {
 public:
  // `trace`, if any, is told of each fault when it is answered.
  explicit Fetcher(PageTransport& transport, FaultTrace* trace = nullptr)
      : transport_(transport), trace_(trace) {}

  // Sends the request for a page on which PageMap::MarkDemanded() returned kAskSource.
  void Ask(PageAddress page, TimePoint fault_time) POSTCOPY_EXCLUDES(mutex_);
  // The same for a page that the same fault waits for: a part of a huge page. Not counted.
  void AskAlong(PageAddress page);
  // Sends the request for `page` again, the answer to which was of no use. False: it is none that
  // waits, nothing was sent.
  bool AskAgain(PageAddress page) POSTCOPY_EXCLUDES(mutex_);
  // Whether a request for a page of the range waits.
  bool IsAwaited(RegionId region, PageRange range) POSTCOPY_EXCLUDES(mutex_);
  void OnDemandServed(PageAddress page) override POSTCOPY_EXCLUDES(mutex_);
  // The answer to request `id` for `page` has come and the page is not being filled. If nobody was told
  // of it before (the page was given up, or came through the bulk between fault and request), the wait
  // ends now.
  void Answered(uint32_t id, PageAddress page) POSTCOPY_EXCLUDES(mutex_);

  // How long request `id` for `page` has been waiting; nothing: it waits no more.
  std::optional<std::chrono::nanoseconds> Waited(uint32_t id, PageAddress page)
      POSTCOPY_EXCLUDES(mutex_);

  // Tells the trace of the requests that are not answered and never will be. Once, at the end.
  void TraceUnanswered() POSTCOPY_EXCLUDES(mutex_);

  // Requests that have not been answered.
  bool outstanding() const { return outstanding_.load(std::memory_order_relaxed) != 0; }
  // Those requests, whoever has waited longest first: to be sent again.
  std::vector<std::pair<uint32_t, PageAddress>> Waiting() POSTCOPY_EXCLUDES(mutex_);
  FaultFigures Figures() POSTCOPY_EXCLUDES(mutex_);

 private:
  void Note(const std::optional<Fetch>& fetch) POSTCOPY_REQUIRES(mutex_);

  PageTransport& transport_;
  FaultTrace* const trace_;
  std::atomic<uint64_t> outstanding_{0};
  Mutex mutex_;
  FetchQueue queue_ POSTCOPY_GUARDED_BY(mutex_);
  Histogram waits_ POSTCOPY_GUARDED_BY(mutex_);
  uint64_t faults_ POSTCOPY_GUARDED_BY(mutex_) = 0;
};

}  // namespace postcopy
