// What the orchestrator needs of a virtual machine monitor, whichever it is.
//
// A driver talks to one VMM process. It carries out steps and reports; the order of the steps, and
// what to do when one fails, is the orchestrator's (relocation/). Every call blocks, with a time
// limit of its own, and returns kDeadlineExceeded when the VMM does not answer within it: while a
// VMM's main thread waits for a missing page it answers nothing. kUnavailable: the connection to
// the VMM has ended, as it does when the process ends; this driver is of no more use then. Not
// thread-safe, except Describe(), QueryState(), QueryStateText() and AwaitStart(), which may run beside another call.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "vmm/machine_print.h"

namespace postcopy {

// A RAM backend as the VMM names it. `id` must be equal on both sides.
struct VmmRamBackend {
  std::string id;
  std::string type;  // the VMM's name of the backend's kind, e.g. "memory-backend-file"
  uint64_t size_bytes = 0;
  bool shared = false;
  std::string mem_path;  // empty: not backed by a named file
  bool prealloc = false;
};

enum class GuestState {
  kRunning,
  kPaused,             // stopped by its operator
  kWaitsForIncoming,   // started to receive a machine, and has received none
  kHeldAtSwitchover,   // stopped by StopAndHold(), no device state has left yet
  kSent,               // its device state has left completely; it stays stopped
  kOther,              // anything else; `state_text` names it
};

// What the two sides must agree about, and what stands in the way of a relocation.
struct VmmDescription {
  int pid = 0;  // of the process that answers on the monitor socket
  std::string version;       // e.g. "7.2.22"
  std::string machine_type;  // versioned, e.g. "pc-i440fx-7.2"
  int vcpus = 0;
  uint64_t ram_bytes = 0;
  std::vector<VmmRamBackend> ram;
  std::vector<std::string> emptied_at_end;  // ids of backends whose file the VMM empties when it ends
  std::vector<std::string> devices;   // "id:type" of user-created devices, sorted
  std::vector<std::string> blockers;  // each a sentence: why this VM can't be moved
  GuestState state = GuestState::kOther;
  std::string state_text;
};

// A device state that has left its VMM completely.
struct DeviceState {
  std::string bytes;
  uint64_t ram_bytes_sent = 0;  // guest RAM that travelled in it (small blocks only)
};

// Wall-clock time of an event as the VMM stamped it, microseconds since the epoch; 0: not seen.
struct EventTime {
  int64_t us = 0;
};

class VmmDriver {
 public:
  virtual ~VmmDriver() = default;

  virtual absl::StatusOr<VmmDescription> Describe() = 0;
  // What the guest can see of its machine, to be compared with the other side's, or with an earlier
  // print of this one. The first of a driver takes some tens of milliseconds.
  virtual absl::StatusOr<MachinePrint> Print() = 0;

  // --- at the source ---------------------------------------------------------------------------

  // Whether the machine runs. kFailedPrecondition: it is in a state that cannot be moved; the message
  // names it.
  virtual absl::StatusOr<bool> CheckMovable() = 0;
  // Checks that the move is possible. Changes nothing.
  virtual absl::Status PrepareSource() = 0;
  // Sets what the move needs (capabilities, limits, that guest RAM outlives the VMM) and remembers
  // what was set before, then stops the VM at the last point where it can still go on here by itself;
  // no device state has left. `was_running` says whether the destination may start it; false with
  // `stopped` 0 if its operator had paused it. kFailedPrecondition also if the machine's state cannot
  // be moved, or if guest RAM that should stay out would travel. On failure the VM is as it was and
  // the settings, too, unless LeftStopped() says otherwise.
  struct Held {
    bool was_running = false;
    EventTime stopped;
  };
  virtual absl::StatusOr<Held> StopAndHold() = 0;
  // After StopAndHold() has failed: that the VM may stand still because of it, and whether it ran
  // before. Nothing: the VM is as it was.
  virtual std::optional<bool> LeftStopped() const = 0;
  // Takes the complete device state out of the held VMM into memory. Afterwards the VM is stopped
  // and its VMM will not start it by itself (kSent). Fails with kFailedPrecondition if the VMM put
  // guest RAM into the stream that should have stayed out.
  virtual absl::StatusOr<DeviceState> TakeDeviceState() = 0;
  // Undoes StopAndHold() and TakeDeviceState(): looks at the VM first (a VMM that failed mid-way
  // may have resumed by itself), then lets it run if it `was_running`, and restores what
  // StopAndHold() changed. A machine that has come to a stop of its own since (it powered off, it
  // panicked, its disk failed) is left so. The caller has made sure that no other host runs this VM.
  // Idempotent; works on a VMM that another driver object has left in any of these states: what that
  // one changed is switched off then. A VMM that waits for a machine is refused with
  // kFailedPrecondition.
  virtual absl::Status ResumeSource(bool was_running) = 0;
  // Restores what StopAndHold() or PrepareDestination() of this driver object changed, without
  // touching the VM's state. Idempotent.
  virtual absl::Status RestoreSettings() = 0;
  // The VMM is to empty guest RAM's file when it ends: what StopAndHold() has switched off, and
  // RestoreSettings() switches on again.
  virtual bool EmptiesMemoryAtEnd() const = 0;
  // The same of another driver object, which is no more: it may have switched off these backends, by id.
  virtual void AdoptEmptiedAtEnd(std::vector<std::string> backends) = 0;
  // Asks the VMM to end, in an orderly way. Returns when it has acknowledged or is gone.
  virtual absl::Status Quit() = 0;
  // Why the VMM ended, from its own last report: "the guest powered off", "its VMM was told to quit".
  // Nothing: it reported nothing, as in a crash. REQUIRES: its process has ended.
  virtual std::optional<std::string> OrderlyExit() = 0;

  // --- at the destination ----------------------------------------------------------------------

  // Sets capabilities and makes sure that the VMM will not start the guest by itself at the end of
  // a load; the VMM keeps waiting and can still be used for another relocation. RestoreSettings()
  // undoes the capabilities. kFailedPrecondition: the VMM does not wait for a machine.
  virtual absl::Status PrepareDestination() = 0;
  // Opens the VMM for the incoming state. From here on this VMM process is used up: it either gets
  // a machine or must be ended.
  virtual absl::Status OpenIncoming() = 0;
  // Takes back a start that somebody may have asked of the waiting VMM since PrepareDestination().
  // kAborted: it is gone.
  virtual absl::Status StayStopped() = 0;
  // The guest is to stay paused after the load: its disks are activated by the load and not by the
  // start, since a VMM whose disks are inactive may not survive being relocated again. REQUIRES:
  // OpenIncoming() has returned ok, and the load has not begun.
  virtual absl::Status ActivateDisksAtLoad() = 0;
  // Writes the whole device state and returns when the VMM has reported that it has loaded it and
  // is paused. kAborted: the VMM reported that the load failed, or it is gone, or has run since.
  // kDeadlineExceeded: it may still be loading, and must be ended if it is not to be used.
  virtual absl::Status LoadDeviceState(std::string_view bytes) = 0;
  // Starts the guest; returns when the VMM has reported that it runs. Time 0: it ran already.
  // kFailedPrecondition: the VMM has refused, in its own words: nothing of this call is under way and
  // it may be repeated. Any other error: it is not known whether the guest runs, or will.
  // Never to be called before LoadDeviceState() has returned ok: a VMM that is still loading would
  // run by itself at the end; kFailedPrecondition then, too, and nothing was sent.
  virtual absl::StatusOr<EventTime> StartGuest() = 0;
  // For a machine that another driver object has loaded: what is reported from here on counts for
  // AwaitStart() and MayHaveRun(). kFailedPrecondition: the guest is not paused.
  virtual absl::Status ExpectPaused() = 0;
  // False only if all that the VMM has reported since StopAndHold(), OpenIncoming() or ExpectPaused() is known, and
  // none of it says that the guest ran. REQUIRES: its process has ended. May block for a second.
  virtual bool MayHaveRun() = 0;
  // Takes back what PrepareDestination() set, and makes sure that nothing is left which would make
  // the VMM save the guest without its memory: ok once that was seen, each answer within `limit`.
  // Works for what another driver object has set, too. Idempotent. Not while a load is wanted.
  virtual absl::Status EndLoadSettings(std::chrono::milliseconds limit) = 0;
  // Waits until the VMM reports that the guest runs, whichever client has started it, since
  // OpenIncoming(), or at the source since StopAndHold() or since the driver was connected, or since
  // the last such report that this call returned. kDeadlineExceeded: not within `timeout`. May run
  // beside the other calls, in one thread, once OpenIncoming() or StopAndHold() has returned ok.
  virtual absl::Status AwaitStart(std::chrono::milliseconds timeout) = 0;

  // --- either ----------------------------------------------------------------------------------

  // The guest's state now.
  virtual absl::StatusOr<GuestState> QueryState() = 0;
  // The same in words, as VmmDescription has it. Waits for at most twice `limit`.
  virtual absl::StatusOr<std::string> QueryStateText(std::chrono::milliseconds limit) = 0;
};

}  // namespace postcopy
