// Brings a VM's memory from its source: the destination's side of one session.
//
// Threads: one that reads events (of the engine), one a lane and one that keeps the lanes (of the
// transport). Between Start() and Finish() faults on the regions are answered. When every page is
// here Finish() takes everything away again: nothing is registered, no thread is left, nothing
// costs any more.
//
// While the source cannot be reached whoever touches a missing page waits, and interruption() tells
// since when and why. When it can be reached again it is asked for what the guest waits for, then
// for the rest that is not here. What cannot be installed, because memory or space is short, is
// tried again for as long as that lasts; stall() tells.
//
// Not responsible for arming (who registered the regions with the userfaultfd emptied them first)
// nor for the decision what to do when the source is gone for good: until PoisonMissing() the
// regions stay registered so that no missing page reads as zero, and after it none can be read.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/fault_trace.h"
#include "core/page_map.h"
#include "engine/fault_reader.h"
#include "engine/fetcher.h"
#include "engine/installer.h"
#include "engine/precacher.h"
#include "engine/retrier.h"
#include "platform/mutex.h"
#include "platform/quiet_thread.h"
#include "transport/page_transport.h"

namespace postcopy {

struct EngineFigures {
  FaultFigures faults;
  uint64_t ram_bytes = 0;
  uint64_t data_bytes = 0;     // what the source has data for; 0 until its map has come
  uint64_t present_bytes = 0;  // of these, what is here or was given up
  // Not here yet, or never; before the source's map has come also what it has no data for.
  uint64_t missing_pages = 0;
  uint64_t demand_bytes = 0;   // content that came over the urgent lane
  uint64_t bulk_bytes = 0;     // content that came over the bulk lanes
  uint64_t zero_pages = 0;     // came without content
  uint64_t discarded_pages = 0;
  uint64_t interruptions = 0;  // times that the source could not be reached
};

// That the source cannot be reached now.
struct Interruption {
  Error cause;  // of the latest attempt
  TimePoint since;
};

struct EngineOptions {
  // Told of the start, of what has data and of faults; the caller's again when Stop() or Finish()
  // has returned. Null: nobody is told.
  FaultTrace* trace = nullptr;
  // Where the states of pages are kept (PageMap); they outlive the engine. Empty: in the engine.
  std::span<std::atomic<uint8_t>> page_bytes = {};
  // An engine that has ended, with its process or not, has left the pages and `page_bytes`: this
  // one takes them up. What had come is here, the rest is brought. REQUIRES: a transport without
  // lanes.
  bool takes_up = false;
};

class Engine final : private PageSink {
 public:
  // `regions` are in the order of transport->layout(), which is compared in Start(). The RAM files they borrow, and `device`,
  // must outlive the engine.
  Engine(std::unique_ptr<PageTransport> transport, FaultDevice& device,
         std::vector<MappedRegion> regions, const EngineOptions& options = {});
  ~Engine() override;  // Stop()s

  // Before Start(): these pages of the RAM file were allocated beforehand. What lies outside the
  // regions is ignored.
  void MarkAllocated(RegionId region, PageRange range);
  // From here on faults are answered by demand. Fails, and answers none, if no thread can be made.
  //   kMismatch         the transport's layout is not that of the regions
  //   kInvalidArgument  `page_bytes` are not as many as pages
  Result<void> Start();
  // Asks the source where it has data. After Start(); the guest must have stopped at the source.
  void AskForMap() POSTCOPY_EXCLUDES(mutex_);
  // Begins with the bulk when the map has come; asks for that if nobody has. After Start();
  // harmless if it has begun.
  void StartBulk() POSTCOPY_EXCLUDES(mutex_);
  // The guest runs from now on. Before, the bulk leaves the way to what the machine's load waits
  // for (GrantWindow). Once, any thread.
  void GuestRuns() { precacher_.GuestRuns(); }

  // Of the way to the source; 0: not known.
  std::chrono::nanoseconds RoundTrip() { return transport_->RoundTrip(); }
  // Lifts every limit on the bulk: it comes as fast as the link carries it, even where the guest then waits
  // longer for a page. Any time, any thread.
  void Hurry() { precacher_.Hurry(); }

  enum class Wait {
    kComplete,  // every page is here: call Finish()
    kTimeout,
    kFailed,    // for good: failure() tells. A stall is none
    kStopped,   // Stop() was called
  };
  Wait WaitComplete(std::chrono::milliseconds timeout) POSTCOPY_EXCLUDES(mutex_);
  std::optional<Error> failure() POSTCOPY_EXCLUDES(mutex_);
  std::optional<Interruption> interruption() POSTCOPY_EXCLUDES(mutex_);
  // Set while pages cannot be installed, for a cause that may pass; they are tried again until then.
  std::optional<Stall> stall() { return retrier_.stall(); }
  // When the source was asked what has data, if it has not said so completely. Until it has, only
  // what the guest touches arrives.
  std::optional<TimePoint> map_awaited_since() POSTCOPY_EXCLUDES(mutex_);
  // Gives up what is missing: ends the lanes for good, then poisons every page that has not come
  // whole, while faults and discards are still read. Who waits for such a page wakes and gets
  // SIGBUS, now and ever after. The number of poisoned pages; 0: the last one had come meanwhile,
  // and memory is complete. Otherwise WaitComplete() never says so, in this engine and in one that
  // takes up.
  //   kUnsupported  the kernel has no UFFDIO_POISON. Nothing has changed
  //   kUnavailable  the VM's process is gone, or Stop() was called before
  //   another       a part may be poisoned, the lanes have ended; it may be called again
  // Blocks for as long as the kernel takes; Stop() waits for it. After Start(); any thread but the
  // transport's.
  Result<uint64_t> PoisonMissing() POSTCOPY_EXCLUDES(stop_mutex_);
  // REQUIRES: WaitComplete() returned kComplete, or PoisonMissing() has succeeded. Ends the lanes,
  // unregisters, ends all threads. A discard that had begun just before is read by nobody any more:
  // whoever made it waits until the last descriptor of the userfaultfd is closed, so the device and
  // all its duplicates are to be closed soon.
  Result<void> Finish() POSTCOPY_EXCLUDES(stop_mutex_);
  // Ends threads and lanes; the regions stay registered. Idempotent, thread-safe; when it returns all of
  // them have ended, whoever called it first.
  void Stop() POSTCOPY_EXCLUDES(stop_mutex_);
  EngineFigures Figures();

 private:
  void OnPage(uint32_t id, PageAddress page, wire::Encoding encoding,
              std::span<const std::byte> content) override;
  void OnRun(size_t lane, RegionId region, PageRange range, wire::Encoding encoding,
             std::span<const std::byte> content) override;
  void OnMap(const wire::MapFields& map) override;
  // Whether these pages are ours. What a peer says is never an index before this was asked.
  bool CheckInside(RegionId region, PageRange range);
  void OnUnreadable(std::optional<size_t> lane, RegionId region, PageRange range,
                    const Error& cause) override;
  void OnInterrupted(const Error& cause) override;
  void OnUrgentRestored() override;
  void OnBulkRestored() override;
  void EndTransport() POSTCOPY_REQUIRES(stop_mutex_) POSTCOPY_EXCLUDES(mutex_);
  void EndReader() POSTCOPY_REQUIRES(stop_mutex_);
  // Lets everyone touch again who waits for a page: of the events about them some were read by the
  // engine that has ended.
  void WakeEveryone();
  // Asks once more for what else of a huge page a fault on `page` waits for.
  void AskAlongAgain(PageAddress page);
  // The source has no data there. Of the urgent lane's thread, before any bulk.
  void MarkEmpty(RegionId region, PageRange range);
  void Note(Installer::Outcome outcome, RegionId region, PageRange range);
  void Fail(const Error& cause) POSTCOPY_EXCLUDES(mutex_);
  void CheckComplete();
  // Reads, after unregistering, what nobody answers: who gives memory up waits until it was read.
  void DropEvents();

  // Fixed after construction.
  const std::vector<MappedRegion> regions_;
  const std::unique_ptr<PageTransport> transport_;
  FaultDevice& device_;
  FaultTrace* const trace_;
  const bool takes_up_;
  const std::optional<Error> mismatch_;

  PageMap map_;
  Fetcher fetcher_;
  Precacher precacher_;
  Installer installer_;
  Retrier retrier_;
  FaultReader reader_;
  Mutex stop_mutex_;
  std::optional<QuietThread> reader_thread_;  // ended under stop_mutex_, once started

  // How far the map has come. Of the urgent lane's thread, or of the keeper's while there is none.
  PageAddress named_up_to_{};   // as the source has told it
  PageAddress mapped_up_to_{};  // in whole pages of the mapping

  std::atomic<uint64_t> data_pages_{0};
  std::atomic<uint64_t> demand_bytes_{0};
  std::atomic<uint64_t> bulk_bytes_{0};
  std::atomic<uint64_t> zero_pages_{0};

  Mutex mutex_;
  CondVar changed_;
  bool complete_ POSTCOPY_GUARDED_BY(mutex_) = false;
  bool stopped_ POSTCOPY_GUARDED_BY(mutex_) = false;
  bool urgent_up_ POSTCOPY_GUARDED_BY(mutex_);
  bool bulk_up_ POSTCOPY_GUARDED_BY(mutex_);
  bool map_wanted_ POSTCOPY_GUARDED_BY(mutex_) = false;
  bool map_known_ POSTCOPY_GUARDED_BY(mutex_) = false;
  TimePoint map_wanted_since_ POSTCOPY_GUARDED_BY(mutex_);  // or since the source is back
  bool bulk_wanted_ POSTCOPY_GUARDED_BY(mutex_) = false;
  uint64_t interruptions_ POSTCOPY_GUARDED_BY(mutex_) = 0;
  std::optional<Interruption> interruption_ POSTCOPY_GUARDED_BY(mutex_);
  std::optional<Error> failure_ POSTCOPY_GUARDED_BY(mutex_);
};

}  // namespace postcopy
