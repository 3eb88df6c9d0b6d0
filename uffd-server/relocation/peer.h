// The other daemon, as the orchestrator sees it. Implemented over gRPC in control/, and in one
// process by tests.
//
// Every call blocks with a time limit and returns kDeadlineExceeded or kUnavailable when the other
// side does not answer; the call may then have been carried out or not. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/memory_layout.h"
#include "core/units.h"
#include "relocation/progress.h"
#include "vmm/machine_print.h"

namespace postcopy {

struct OfferedRegion {
  Region region;
  std::vector<PageRange> data;  // where the source has data now; a hint for allocation
};

// What the source tells the destination so that both can be checked against each other.
struct Offer {
  std::string session;
  std::string vm;         // name at the destination
  std::string source_vm;
  std::vector<OfferedRegion> ram;
  std::string machine_type;
  std::string vmm_version;
  int vcpus = 0;
  std::vector<std::string> devices;
  MachinePrint print;  // empty: an older daemon's
  std::vector<std::string> data_addresses;
  std::string control_address;
};

// What a side's durable record says of a session.
enum class RecordedOutcome {
  kNone,        // no record
  kPrepared,
  kNever,       // destination: has not run it and will not
  kHandedOver,  // source: the destination owns it
  kRolledBack,  // source: it stayed there
  kOwner,       // destination: owns it
  kCommitted,   // nothing is wanted of the source: all has arrived, or what is missing was given up
  kUnreadable,
};

// The destination has seen the VMM dead that had the machine, without its having run the guest, and
// cannot record that: its state directory fails. The source may run the VM, once it has recorded that
// it was rolled back: what the destination's disk says later does not count.
inline absl::Status DeadNotRecordedError(std::string_view text) {
  return absl::OutOfRangeError(std::string(text));
}
inline bool IsDeadNotRecorded(const absl::Status& status) { return absl::IsOutOfRange(status); }

// A device state on its way to the destination. One that is not finished is given up.
class StateTransfer {
 public:
  virtual ~StateTransfer() = default;
  // Sends it. Returns when the destination's VMM has loaded it. Once.
  // `run`: the guest is to run once it is handed over; false: its operator had paused it.
  virtual absl::Status Finish(bool run, std::string_view device_state) = 0;
};

// A guest that was handed over.
struct Resumed {
  int64_t at_us = 0;  // RESUME by the destination's wall clock, microseconds since the epoch; 0: it stays paused
  // For how long it ran when this was answered, by the destination's steady clock; nothing: it stays
  // paused, or was resumed in an earlier daemon's time.
  std::optional<std::chrono::microseconds> since;
};

// Calls that the source's daemon makes at the destination's.
class DestinationPeer {
 public:
  virtual ~DestinationPeer() = default;
  // kFailedPrecondition: the sides do not fit; the message names each difference.
  virtual absl::Status MakeOffer(const Offer& offer) = 0;
  // What MakeOffer() would refuse, a sentence each; nothing is changed. kUnimplemented: the other
  // daemon is older.
  virtual absl::StatusOr<std::vector<std::string>> Check(const Offer& offer) = 0;
  // Makes a device state that is sent soon afterwards travel fast, where the way is long. May do
  // nothing; fails silently.
  virtual void WarmUp() = 0;
  virtual absl::Status OpenIncoming(const std::string& session) = 0;
  // Tells that the guest has stopped, so that its memory can be had from now on; does not wait for
  // an answer: what is wrong Finish() says. The limit of time begins here.
  virtual std::unique_ptr<StateTransfer> BeginLoad(const std::string& session) = 0;
  // Returns when the guest runs (or stays paused).
  //   kAborted: the destination has recorded that it never runs it; IsDeadNotRecorded(): see there;
  //   kDataLoss: it owns it and the VM has ended as in a crash; anything else: ask again.
  virtual absl::StatusOr<Resumed> HandOver(const std::string& session) = 0;
  // ok: the destination has recorded that it never runs this session's VM; or IsDeadNotRecorded().
  // Waits for `limit` at most.
  virtual absl::Status Abort(const std::string& session, std::string_view reason,
                             std::chrono::milliseconds limit) = 0;
  // Memory arrives there without limit from now on.
  virtual absl::Status Hurry(const std::string& session) = 0;
  virtual absl::StatusOr<Progress> Figures(const std::string& session) = 0;
  virtual absl::StatusOr<RecordedOutcome> Query(const std::string& session) = 0;
};

// Calls that the destination's daemon makes at the source's.
class SourcePeer {
 public:
  virtual ~SourcePeer() = default;
  virtual absl::Status Arrived(const std::string& session, const Progress& figures) = 0;
  // ok: the source has recorded that it handed the VM over, its VMM lives, and the guest cannot be
  // started there but by its daemon. kFailedPrecondition says what is not so.
  virtual absl::Status ConfirmFenced(const std::string& session) = 0;
  virtual absl::StatusOr<RecordedOutcome> Query(const std::string& session) = 0;
};

// Makes connections to other daemons. The addresses are host:port.
class PeerFactory {
 public:
  virtual ~PeerFactory() = default;
  virtual std::unique_ptr<DestinationPeer> ConnectDestination(const std::string& address) = 0;
  virtual std::unique_ptr<SourcePeer> ConnectSource(const std::string& address) = 0;
};

}  // namespace postcopy
