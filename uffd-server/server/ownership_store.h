// Durable records of who owns which VM: one small file in the state directory for each session and
// each role that this host has in it. Its content is ownership_record.h's.
//
// A record that Write() has returned ok for survives a crash of the host. The first of a session is
// written to a new file, which is synced and renamed into place; later ones overwrite its one sector
// in place, since they are written while the VM stands still. Whatever happens during Write(), a
// reader sees the old record or the new one, whole. Thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/session_id.h"
#include "core/session_state.h"
#include "server/ownership_record.h"

namespace postcopy {

class OwnershipStore {
 public:
  // Makes the directory if need be. kPermissionDenied, kInternal: it can't be made or written.
  static absl::StatusOr<OwnershipStore> Open(const std::string& directory);

  // The session's first record in this role. kAlreadyExists: it has one, which stays as it was.
  // kInternal, kInvalidArgument: nothing was written.
  absl::Status Create(const OwnershipRecord& record);
  // kInternal: the record may or may not be durable; Read() tells what is there now. kInvalidArgument:
  // nothing was written, the names do not fit; none of this session's records would.
  absl::Status Write(const OwnershipRecord& record);
  // kNotFound: no record. kDataLoss: there is one and it can't be read.
  absl::StatusOr<OwnershipRecord> Read(const SessionId& session, SessionRole role) const;
  // All readable records, oldest first.
  std::vector<OwnershipRecord> ReadAll() const;
  // Of these, this VM's.
  std::vector<OwnershipRecord> ReadAll(const std::string& vm) const;
  // Forgets a session that has ended.
  void Remove(const SessionId& session, SessionRole role);

 private:
  explicit OwnershipStore(std::string directory) : directory_(std::move(directory)) {}
  std::string PathOf(const SessionId& session, SessionRole role) const;

  std::string directory_;
};

}  // namespace postcopy
