// A Watch call on a thread of its own that prints what it is told and keeps the last of it.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "cli/progress_printer.h"
#include "control/relocation_client.h"

namespace postcopy {

// Thread-safe.
class Watching {
 public:
  // Begins at once. `client` must outlive this. `each`, if it is one, is called in place of the printer
  // for every message but that of a final state, on the thread of the call.
  Watching(RelocationClient& client, const std::string& vm, const PrinterOptions& printer,
           std::function<void(const v1::Progress&)> each = nullptr);
  // Stops.
  ~Watching();

  // Notified when the call has ended, for whatever reason.
  const absl::Notification& ended() const { return ended_; }
  // Ends the call and waits for it.
  void Stop();
  // Waits until the call ends, then says how. The bar is gone.
  absl::Status Join();

  // Empty until the first message has come.
  v1::Progress last();
  // When kCommitted was heard of.
  std::optional<std::chrono::steady_clock::time_point> committed_at();
  // A line of its own amid the progress.
  void Say(const std::string& text);
  std::string Summary(double total_ms);

 private:
  void Take(const v1::Progress& progress);

  const std::function<void(const v1::Progress&)> each_;
  absl::Mutex mutex_;
  ProgressPrinter printer_ ABSL_GUARDED_BY(mutex_);
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::chrono::steady_clock::time_point> committed_at_ ABSL_GUARDED_BY(mutex_);
  absl::Notification ended_;
  std::jthread thread_;  // last: it uses all the others
};

}  // namespace postcopy
