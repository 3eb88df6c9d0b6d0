// Relocations that this daemon has lost because it ended meanwhile: what is on disk, the VMM and the
// other daemon still tell what to do.
//
// The record alone says who owns the VM; a VMM is touched only where it is seen to be in the middle of
// that very session (held or sent at the source, armed for it at the destination). Thread-safe: each
// step may be done twice.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "relocation/relocation.h"
#include "relocation/session.h"

namespace postcopy {

class LostSessions {
 public:
  explicit LostSessions(const DaemonParts& parts) : parts_(parts) {}

  // Puts in order, without an operator, what can be: a source that had not handed over goes on; a
  // destination that was not the owner and never will be is ended. False: it depends on a daemon that
  // cannot be asked now; try again later.
  bool Settle(const std::string& vm);
  // Finds out who owns the VM, and lets it go on here if that is this host. kNotFound: no record.
  absl::StatusOr<RecoveryReport> Recover(const std::string& vm);
  // The source gives the session up: ok if "never" is recorded. kFailedPrecondition: this host owns the
  // VM.
  absl::Status Abort(const std::string& session, std::string_view reason);

 private:
  bool SettleSource(const OwnershipRecord& record);
  bool SettleDestination(const OwnershipRecord& record);
  bool SettleNever(const OwnershipRecord& record);
  // Ends what the destination's VMM was armed for and records "never".
  absl::Status NeverRun(const OwnershipRecord& record, std::string_view reason);
  absl::Status ResumeSource(const OwnershipRecord& record);

  const DaemonParts& parts_;
};

}  // namespace postcopy
