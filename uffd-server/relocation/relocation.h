// The relocations that this host's daemon takes part in, at either end: what the control plane
// calls. Error codes are those of postcopy.proto.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "relocation/peer.h"
#include "relocation/progress.h"

namespace postcopy {

struct PrepareOptions {
  std::string vm;
  std::string destination;     // control address of the other daemon
  std::string destination_vm;  // empty: the same name
  bool keep_source = false;
};

// What becomes of a VM whose source is gone for good while its memory is still arriving.
enum class SourceLostAction {
  kPoison,  // it runs on; touching what has not come raises SIGBUS
  kKill,    // its VMM is ended, as in a crash
};

// What is done without an operator.
struct SourceLostPolicy {
  std::optional<SourceLostAction> action;  // nothing: the VM waits
  std::chrono::seconds after{300};         // the source has been out of reach without interruption
};

// Something that Prepare() would refuse.
struct Finding {
  std::string side;  // "source" or "destination"
  std::string message;
};

struct VmSummary {
  std::string name;
  int pid = 0;
  std::string problem;
  std::string guest_state;
  uint64_t ram_bytes = 0;
  bool in_session = false;
  Progress progress;  // meaningful if in_session
};

struct RecoveryReport {
  SessionState state = SessionState::kUnknown;
  std::string owner;
  std::string report;
};

// Whether whoever asked for an operation has gone. It is looked at between steps that take long.
using HasGone = std::function<bool()>;

// Thread-safe; the calls block as long as what they do takes.
class Relocations {
 public:
  virtual ~Relocations() = default;

  virtual std::vector<VmSummary> List() = 0;
  // The sessions for which this host has to stay on: their VMs run elsewhere, or may, and need memory
  // that only this host has. May ask each destination for its figures, 2 s each at most.
  virtual std::vector<Progress> Owed() = 0;
  virtual absl::StatusOr<std::string> Prepare(const PrepareOptions& options) = 0;
  // All that Prepare() would refuse at both ends; changes nothing at either. kNotFound: no such VM.
  virtual absl::StatusOr<std::vector<Finding>> Check(const PrepareOptions& options) = 0;
  // The downtime in milliseconds; nothing: not known, or the VM was paused.
  virtual absl::StatusOr<std::optional<double>> Switch(const std::string& session) = 0;
  virtual absl::StatusOr<Progress> Stats(const std::string& vm) = 0;
  // Waits until the session's state differs from `seen` or `timeout` has passed; then as Stats().
  virtual absl::StatusOr<Progress> WaitForChange(const std::string& vm, SessionState seen,
                                                 std::chrono::milliseconds timeout) = 0;
  virtual absl::Status Cancel(const std::string& vm) = 0;
  // After the switch, at either side: lifts every limit on what brings the VM's memory.
  virtual absl::Status Hurry(const std::string& vm) = 0;
  // At the destination: gives up the source of a VM whose memory is arriving. What came of it, in
  // words.
  //   kFailedPrecondition  no memory is arriving here, the source is not out of reach, this kernel
  //                        cannot poison; nothing has changed
  virtual absl::StatusOr<std::string> SourceLost(const std::string& vm,
                                                 SourceLostAction action) = 0;
  // At the source: takes back a VM whose destination is gone for good. What was done, in words.
  // REQUIRES: the VM has not run there, and never will.
  //   kFailedPrecondition  the destination has run it, is not out of reach or fetches memory, or it is known
  //                        who owns the VM; nothing has changed
  virtual absl::StatusOr<std::string> DestinationLost(const std::string& vm) = 0;
  virtual absl::Status Release(const std::string& vm) = 0;
  virtual absl::StatusOr<RecoveryReport> Recover(const std::string& vm) = 0;

  // --- what other daemons ask of this one ------------------------------------------------------

  // kCancelled: `has_gone` said so; nothing is left of it.
  virtual absl::Status OnOffer(const Offer& offer, const HasGone& has_gone) = 0;
  virtual absl::StatusOr<std::vector<std::string>> OnCheck(const Offer& offer) = 0;
  virtual absl::Status OnOpenIncoming(const std::string& session) = 0;
  // Its guest has stopped at the source: the memory can be had from now on.
  virtual absl::Status OnStopped(const std::string& session) = 0;
  virtual absl::Status OnLoad(const std::string& session, bool run,
                              std::string_view device_state) = 0;
  virtual absl::StatusOr<Resumed> OnHandOver(const std::string& session) = 0;
  virtual absl::Status OnAbort(const std::string& session, std::string_view reason) = 0;
  virtual absl::Status OnHurry(const std::string& session) = 0;
  virtual absl::StatusOr<Progress> OnFigures(const std::string& session) = 0;
  virtual absl::Status OnArrived(const std::string& session, const Progress& figures) = 0;
  // See SourcePeer::ConfirmFenced().
  virtual absl::Status OnConfirmFenced(const std::string& session) = 0;
  // What the record says that this host has in `role`.
  virtual absl::StatusOr<RecordedOutcome> OnQuery(const std::string& session, SessionRole role) = 0;
};

}  // namespace postcopy
