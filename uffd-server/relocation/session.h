// What the two sides of a relocation have in common: the state, by the table, and who waits for it.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "core/session_id.h"
#include "relocation/fault_plan.h"
#include "relocation/own_addresses.h"
#include "relocation/peer.h"
#include "relocation/progress.h"
#include "relocation/relocation.h"
#include "server/ownership_store.h"
#include "server/page_server.h"
#include "platform/process_identity.h"
#include "server/vm_registry.h"
#include "trace/trace_folder.h"
#include "vmm/guest_states.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// The rest of the daemon, as sessions use it. All outlive every session.
struct DaemonParts {
  VmRegistry& registry;
  PageServer& page_server;
  OwnershipStore& store;
  PeerFactory& peers;
  // Connects to the VMM of a VM, over its monitor socket.
  std::function<absl::StatusOr<std::unique_ptr<VmmDriver>>(const VmRecord& vm)> connect_vmm;
  // Asks monitors about their guests, all at once and for a bounded time (vmm/guest_states.h).
  std::function<std::vector<GuestAnswer>(const std::vector<Monitor>& monitors)> ask_guests;
  FaultPlan faults;
  OwnAddresses addresses;  // where other daemons reach this one and its page server
  size_t bulk_lanes = 2;
  // Where the faults of arrivals are written to; nothing: they are not recorded.
  std::optional<TraceFolder> traces = std::nullopt;
  SourceLostPolicy source_lost = {};
  // For so long a start that the destination's VMM refuses is repeated before the VM is given back.
  std::chrono::milliseconds start_tries{10'000};
  // Pause before a hand-over that was not confirmed is repeated.
  std::chrono::milliseconds hand_over_retry{500};
  // Pause before a destination is asked again who owns a VM, while that is not known; five times
  // that while it is known, until its memory has arrived.
  std::chrono::milliseconds ask_owner_every{1'000};
};

// How long the destination's "never" is waited for. The VM stands still meanwhile, so where its word
// is not needed, only welcome, it is not waited for long.
constexpr std::chrono::milliseconds kAbortTimeout{10'000};
constexpr std::chrono::milliseconds kQuickAbortTimeout{300};

// State and figures of one session. Thread-safe.
class SessionStatus {
 public:
  explicit SessionStatus(Progress initial);

  SessionState state() const ABSL_LOCKS_EXCLUDED(mutex_);
  Progress Snapshot() const ABSL_LOCKS_EXCLUDED(mutex_);
  // Moves the state by the table and logs it; false if the table does not allow it. `error` is kept
  // for whoever asks, if not empty.
  bool Apply(SessionEvent event, const std::string& error = "") ABSL_LOCKS_EXCLUDED(mutex_);
  // Changes figures; the function must not touch the state.
  void Update(const std::function<void(Progress&)>& change) ABSL_LOCKS_EXCLUDED(mutex_);
  // At the destination: the guest runs since then. Until something else is said, after_switch_ms
  // counts from there.
  void NoteResumed(int64_t at_us, std::chrono::steady_clock::time_point at)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // At the destination: the last page is here.
  void NoteCommitted(int64_t at_us) ABSL_LOCKS_EXCLUDED(mutex_);
  // For how long the guest has run; nothing: NoteResumed() was not called.
  std::optional<std::chrono::microseconds> SinceResume() const ABSL_LOCKS_EXCLUDED(mutex_);
  // False: the state is still `seen` after `timeout`.
  bool WaitForChange(SessionState seen, std::chrono::milliseconds timeout) const
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  Progress progress_ ABSL_GUARDED_BY(mutex_);
  std::optional<std::chrono::steady_clock::time_point> resumed_ ABSL_GUARDED_BY(mutex_);
  const std::chrono::steady_clock::time_point prepared_at_;
};

// Lets one operation of a session run at a time, without holding a lock across its I/O.
class Turn {
 public:
  class Holder {
   public:
    // Waits for `limit` at most.
    explicit Holder(Turn& turn, absl::Duration limit = absl::InfiniteDuration()) : turn_(turn) {
      absl::MutexLock lock(&turn_.mutex_);
      const auto free = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(turn_.mutex_) { return !turn_.taken_; };
      holds_ = turn_.mutex_.AwaitWithTimeout(absl::Condition(&free), limit);
      if (holds_) turn_.taken_ = true;
    }
    ~Holder() {
      if (!holds_) return;
      absl::MutexLock lock(&turn_.mutex_);
      turn_.taken_ = false;
    }
    // False: others have kept it for longer.
    bool holds() const { return holds_; }
    Holder(const Holder&) = delete;
    Holder& operator=(const Holder&) = delete;

   private:
    Turn& turn_;
    bool holds_;
  };

 private:
  absl::Mutex mutex_;
  bool taken_ ABSL_GUARDED_BY(mutex_) = false;
};

// The VMM that a session talks to at the moment, for those who only look at its guest: does not keep the
// connection. Thread-safe.
class VmmView {
 public:
  void Show(const std::shared_ptr<VmmDriver>& vmm) ABSL_LOCKS_EXCLUDED(mutex_);
  // "running", "paused", … as VmmDescription has it; empty: not known now. Blocks for at most twice `limit`.
  std::string GuestState(std::chrono::milliseconds limit) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  std::weak_ptr<VmmDriver> vmm_ ABSL_GUARDED_BY(mutex_);
};

// The VM's process as it is recorded.
ProcessIdentity IdentityOf(const VmRecord& vm);

// Wall clock, microseconds since the epoch.
int64_t NowUs();

// Ends the VMM whatever it does (SIGKILL) and waits until it is gone, 5 s at most.
absl::Status KillVmm(const VmRecord& vm);

// What `step` returns; kInternal with the cause where it throws (in practice: out of memory), so that
// whoever called it undoes what was begun.
absl::Status Caught(const std::function<absl::Status()>& step);

// For a record that could not be written while nothing depended on it yet: kResourceExhausted with
// the same message; ok stays ok.
absl::Status NothingDone(const absl::Status& written);

// What `operation`, which is about memory that arrives, says of a session in this state.
absl::Status NothingArrives(const std::string& operation, const std::string& vm,
                            SessionState state);

// `status` with `prefix` before its message; ok stays ok.
absl::Status Prefixed(const std::string& prefix, const absl::Status& status);

}  // namespace postcopy
