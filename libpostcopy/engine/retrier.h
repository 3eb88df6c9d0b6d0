// Tries again, after a pause, what could not be had or installed: memory was short, a file system or
// a pool full, a read failed at the source. So what waits goes on by itself when the cause is gone.
//
// Pages that somebody waits for are requested again first; the others are granted again as before.
// Where nearly everything fails the bulk waits for the next try, too: it would only be dropped.
//
// Its thread sleeps while nothing has failed. Not responsible for what waiting cannot fix
// (the VM's process is gone), nor for lanes that break (the transport's).
//
// Thread-safe. What is noted here is rare, so it may allocate.
#pragma once

#include <atomic>
#include <chrono>
#include <optional>
#include <vector>

#include "core/page_map.h"
#include "engine/fault_device.h"
#include "engine/fault_reader.h"
#include "engine/fetcher.h"
#include "engine/precacher.h"
#include "platform/mutex.h"
#include "platform/quiet_thread.h"

namespace postcopy {

// That pages could not be had or installed, and have not been since.
struct Stall {
  Error cause;  // of the latest failure
  TimePoint since;
};

class Retrier final : public MapFailureObserver {
 public:
  static constexpr std::chrono::milliseconds kFirstPause{50};
  static constexpr std::chrono::milliseconds kLongestPause{1000};
  // So many failures of the bulk in a row make it wait.
  static constexpr uint64_t kFailuresInARow = 16;

  Retrier(FaultDevice& device, PageMap& map, const std::vector<MappedRegion>& regions,
          Fetcher& fetcher, Precacher& precacher)
      : device_(device), map_(map), regions_(regions), fetcher_(fetcher), precacher_(precacher) {}
  ~Retrier() override { Stop(); }

  // Fails if no thread can be made.
  Result<void> Start();
  // Ends the thread. Idempotent; not thread-safe. The transport has to be stopped before: the thread
  // may be sending.
  void Stop() POSTCOPY_EXCLUDES(mutex_);

  // Content of `range` came, and was not installed, or will not come; its pages are missing again.
  void OnFailed(RegionId region, PageRange range, const Error& cause) POSTCOPY_EXCLUDES(mutex_);
  // Content was installed.
  void OnInstalled() {
    if (in_a_row_.load(std::memory_order_relaxed) != 0) {
      in_a_row_.store(0, std::memory_order_relaxed);
    }
  }
  // A fault that needs nothing from the source could not be answered: its page is woken later, so
  // that it faults again.
  void OnNotMapped(PageAddress page, int error) override POSTCOPY_EXCLUDES(mutex_);

  // Nothing: nothing has failed that has not succeeded since.
  std::optional<Stall> stall() POSTCOPY_EXCLUDES(mutex_);

 private:
  struct Failed {
    RegionId region;
    PageRange range;
  };
  void Run() POSTCOPY_EXCLUDES(mutex_);
  // Asks for what has failed since the last round. False: there is nothing left to try.
  bool Round() POSTCOPY_EXCLUDES(mutex_);
  void NoteStall(const Error& cause) POSTCOPY_REQUIRES(mutex_);
  // Requests the missing pages of a unit (a page, or a huge page) if somebody waits for one.
  void RequestIfWaitedFor(RegionId region, PageRange unit);
  bool IsAllHere(const Failed& failed) const;

  FaultDevice& device_;
  PageMap& map_;
  const std::vector<MappedRegion>& regions_;
  Fetcher& fetcher_;
  Precacher& precacher_;
  std::atomic<uint64_t> in_a_row_{0};
  std::optional<QuietThread> thread_;
  std::vector<Failed> retried_;  // of the thread: tried again, and not known to be here

  Mutex mutex_;
  CondVar changed_;
  bool stopping_ POSTCOPY_GUARDED_BY(mutex_) = false;
  std::vector<Failed> failed_ POSTCOPY_GUARDED_BY(mutex_);  // since the last round
  std::vector<PageAddress> not_mapped_ POSTCOPY_GUARDED_BY(mutex_);
  std::optional<Stall> stall_ POSTCOPY_GUARDED_BY(mutex_);
};

}  // namespace postcopy
