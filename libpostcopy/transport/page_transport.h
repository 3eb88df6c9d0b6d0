// How a destination gets pages from its source: requests and grants out, pages and runs in.
//
// Interface of TcpTransport; it fits one-sided reads too, where Request() and Grant() post reads
// and the sink is called when they complete. An implementation delivers what was asked for and
// nothing else (a source that sends anything else loses its lanes), and makes new lanes when they
// break; order, deduplication, and asking again for what
// was lost with a lane are the engine's.
#pragma once

#include <cstddef>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>

#include "core/memory_layout.h"
#include "core/result.h"
#include "core/units.h"
#include "wire/page_protocol.h"

namespace postcopy {

// What the engine does with what comes. Called on the transport's threads: OnPage, OnMap on the
// urgent lane's, OnRun on that bulk lane's; different lanes call at the same time. `content` is
// valid during the call only.
class PageSink {
 public:
  virtual ~PageSink() = default;
  // The answer to Request(id, page). kZero: `content` is empty.
  virtual void OnPage(uint32_t id, PageAddress page, wire::Encoding encoding,
                      std::span<const std::byte> content) = 0;
  // Part of the answer to a grant on `lane`.
  virtual void OnRun(size_t lane, RegionId region, PageRange range, wire::Encoding encoding,
                     std::span<const std::byte> content) = 0;
  // One piece of the answer to RequestMap().
  virtual void OnMap(const wire::MapFields& map) = 0;
  // The answer to a request, or part of the answer to a grant on `lane`: the source cannot read these
  // pages now, for `cause`. It may be able to later.
  virtual void OnUnreadable(std::optional<size_t> lane, RegionId region, PageRange range,
                            const Error& cause) = 0;

  // The rest is called on a thread of its own, one call at a time.
  //
  // A lane broke, and all have ended with it: of what was asked for before nothing more comes. New lanes
  // are being made; it is called again each time that this fails.
  virtual void OnInterrupted(const Error& cause) = 0;
  // Requests and the map can be asked for again, and could be a little before. What was asked for
  // before the interruption will not be answered.
  virtual void OnUrgentRestored() = 0;
  // Grants, too.
  virtual void OnBulkRestored() = 0;
};

class PageTransport {
 public:
  // Grants on a lane of which not all has come, at most.
  static constexpr size_t kMostGrants = 128;

  virtual ~PageTransport() = default;

  // What the source says its guest RAM looks like.
  virtual const MemoryLayout& layout() const = 0;
  virtual size_t bulk_lanes() const = 0;
  // Begins to call `sink`, which must live until Stop() has returned. Once. On failure (no thread
  // can be made) Stop() is still to be called.
  virtual Result<void> Start(PageSink& sink) = 0;
  // Each queues one message and returns; false: the lane is down, nothing was queued (OnInterrupted()
  // has been or will be called). Thread-safe. Blocks only while the kernel's send buffer is full.
  // A second RequestMap() before the lanes are new sends nothing: the answer is on its way, or has
  // come. REQUIRES of Grant(): the lane has fewer than kMostGrants out.
  virtual bool Request(uint32_t id, PageAddress page) = 0;
  virtual bool RequestMap() = 0;
  virtual bool Grant(size_t lane, RegionId region, PageRange range) = 0;
  // Of the way to the source, the shortest that was seen; 0: not known. Any time.
  virtual std::chrono::nanoseconds RoundTrip() = 0;
  // Ends all lanes. When it returns no thread of the transport is left and the sink is not called
  // any more. Must not be called from the sink.
  virtual void Stop() = 0;
};

}  // namespace postcopy
