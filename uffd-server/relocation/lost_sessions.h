// Relocations that this daemon has lost because it ended meanwhile: what is on disk, the VMM and
// the other daemon still tell what to do.
//
// Split by what is done: lost_sessions.cc (settling), lost_session_answers.cc (answers to
// others), lost_records.cc (VMMs of which no record can be read).
//
// The record alone says who owns the VM; a VMM is touched only where it is seen to be in the middle
// of that very session (held or sent at the source, armed for it at the destination). One call at a
// time, so that a session which is being taken up is not given up beside it.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "relocation/destination_session.h"
#include "relocation/relocation.h"
#include "relocation/session.h"
#include "relocation/source_session.h"

namespace postcopy {

class LostSessions {
 public:
  explicit LostSessions(const DaemonParts& parts) : parts_(parts) {}

  // What has become of a VM's last session: one of the two if it is taken up.
  struct Settled {
    bool done = false;  // otherwise it depends on what cannot be asked now: try again later
    std::shared_ptr<SourceSession> source = nullptr;
    std::shared_ptr<DestinationSession> destination = nullptr;
  };
  // Puts in order, without an operator, what can be: a source that had not handed over goes on, one
  // that had serves its memory again; a destination that is the owner goes on bringing memory, or
  // giving up what is missing of it, one that is not and never will be is ended.
  Settled Settle(const std::string& vm);
  // VMs that Settle() has something to do for, VMM or not: those that have arrived and whose source has
  // not been told, and those that were handed over, whose memory is still to be served.
  // kUnavailable: this can't be read now.
  absl::StatusOr<std::vector<std::string>> ToSettle() const;
  // Sessions that this host's records, or the fences of its VMs, say were handed over, of VMMs that live:
  // their memory is here, whether this daemon has resumed the session or not. Does not wait for a turn.
  std::vector<Progress> Owed() const;
  // What an operator must know of a VM whose record is missing or unreadable, for `list`; empty:
  // nothing. `all` are the records of this host.
  static std::string ProblemOf(const VmOverview& vm, const OwnershipStore::Records& all);
  // Finds out who owns the VM, and lets it go on here if that is this host. kNotFound: no record.
  absl::StatusOr<RecoveryReport> Recover(const std::string& vm);
  // The source gives the session up: ok if "never" is recorded. kFailedPrecondition: this host owns
  // the VM. kNotFound: there is no record; nothing is written.
  absl::Status Abort(const std::string& session, std::string_view reason);
  // The source says that the VM is this host's. Microseconds since the epoch, 0: unknown when it
  // resumed.
  //   kAborted      "never" is recorded
  //   kDataLoss     this host owns it, and its VMM has ended
  //   kUnavailable  the session is being taken up, or its record cannot be read: ask again
  //   kNotFound     there is no record
  absl::StatusOr<Resumed> HandOver(const std::string& session);
  // The destination says that all memory has come. kUnavailable: the session is being taken up, ask
  // again.
  absl::Status Arrived(const std::string& session);
  // Of a session that ended with its VMM while no daemon ran; nothing: of no such.
  std::optional<Progress> Figures(const std::string& session);

 private:
  // The record that says what becomes of a VM: of the session that its VMM is armed for, otherwise
  // the last one. Null: there is none that can be read.
  static const OwnershipRecord* Governing(const OwnershipStore::Records& records,
                                          const absl::StatusOr<VmRecord>& registered);
  Settled SettleRecord(const OwnershipRecord& record);
  // A VMM that is armed for a session without a readable record: what it keeps, and the source, tell.
  Settled SettleUnrecorded(const VmRecord& vm, const OwnershipStore::Records& records);
  // A source of whose record only the details can be read.
  Settled SettleUnreadableSource(const VmRecord& vm, OwnershipRecord details);
  // What is wrong with a VM's records, what must not be ended, and what to do; empty: nothing is.
  std::string UnrecordedText(const std::string& vm, const absl::StatusOr<VmRecord>& registered,
                             const OwnershipStore::Records& records) const;
  RecoveryReport RecoverOffered(const OwnershipRecord& record);
  Settled SettleSource(const OwnershipRecord& record);
  Settled SettleHandedOver(const OwnershipRecord& record);
  // Of a source whose VMM is not registered: resumes serving from its RAM files if the VMM has ended.
  Settled SettleFiles(const OwnershipRecord& record);
  Settled SettleOffered(const OwnershipRecord& record);
  Settled SettleOwner(const OwnershipRecord& record);
  // Done where its VM has ended; otherwise taken up, to make sure that what is missing is poisoned.
  Settled SettleIncomplete(const OwnershipRecord& record);
  bool SettleRolledBack(const OwnershipRecord& record);
  // "Owner" that an earlier daemon failed to write, or could not replace: its VMM is gone for certain and
  // the source has recorded that the VM stayed there. True: "never" is written instead.
  bool StayedAtSource(const OwnershipRecord& record);
  // What was set in its VMM for the load is off, or that VMM is gone.
  absl::Status EndLoadSettings(const OwnershipRecord& record);
  bool SettleArrived(const OwnershipRecord& record);
  bool SettleNever(const OwnershipRecord& record);
  Settled TakeUpDestination(const OwnershipRecord& record, VmRecord vm);
  // Whether the VM has registered, or may be about to, and has not turned out to be of no use.
  bool MayTakeUp(const OwnershipRecord& record) const;
  // Why its session is not taken up, as far as is known.
  std::string WhyNot(const std::string& vm, int vmm_pid) const;
  // What is known of its figures: names.
  static Progress LastFigures(const OwnershipRecord& record);
  void SayUnsettled(const std::string& vm, const std::string& session, const std::string& cause);
  // Logs why a VM's session is not settled, once for each reason.
  void SayUnsettled(const OwnershipRecord& record, const absl::Status& cause);
  // Ends what the destination's VMM was armed for and records "never".
  absl::Status NeverRun(const OwnershipRecord& record, std::string_view reason);
  // Ends a VMM that is armed for the session, or lets it wait for another if it still waits for a machine.
  absl::Status FreeVmm(const OwnershipRecord& record);
  absl::Status ResumeSource(const OwnershipRecord& record);

  const DaemonParts& parts_;
  const std::chrono::steady_clock::time_point began_ = std::chrono::steady_clock::now();
  std::map<std::string, std::string> said_;  // by VM: why it is not taken up
  std::set<SessionId> told_once_;            // arrived, and a later session of the VM counts
  std::set<SessionId> hopeless_;             // whose VMM has kept nothing that could be taken up
};

}  // namespace postcopy
