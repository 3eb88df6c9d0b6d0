// Durable records of who owns which VM: one small file in the state directory for each session and
// each role that this host has in it. Its content is ownership_record.h's.
//
// A record that Write() has returned ok for survives a crash of the host, and damage to one of the
// file's two copies. The first of a session is written to a new file, which is synced and linked
// into place; later ones overwrite a line in place, since they are written while the VM stands
// still. Whatever happens during Write(), a reader sees the old record or the new one. Thread-safe;
// its daemon alone uses the directory.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/session_id.h"
#include "core/session_state.h"
#include "server/ownership_record.h"

namespace postcopy {

// A file of which no copy can be read.
struct UnreadableRecord {
  std::string path;
  std::string cause;
  std::optional<SessionId> session;  // by the file's name
  std::optional<SessionRole> role;   // the same
  // What could be read of it all the same; mark and `run` mean nothing.
  std::optional<OwnershipRecord> details;
};

class OwnershipStore {
 public:
  struct Records {
    std::vector<OwnershipRecord> readable;  // in the order in which they were written last
    std::vector<UnreadableRecord> unreadable;
  };

  // Makes the directory if need be, takes over records of earlier versions, and repairs those of which
  // one copy is damaged. kInternal: it can't be made, read or written.
  static absl::StatusOr<OwnershipStore> Open(const std::string& directory);

  // The session's first record in this role. kAlreadyExists: it has one, which stays as it was.
  // kInternal, kInvalidArgument: nothing was written.
  absl::Status Create(const OwnershipRecord& record);
  // kInternal: the record may or may not be durable; Read() tells what is there now. kInvalidArgument:
  // nothing was written, a text does not fit; none of this session's records would.
  absl::Status Write(const OwnershipRecord& record);
  // kNotFound: no record. kDataLoss: there is one, and no copy of it can be read. kUnavailable: it
  // can't be read now.
  absl::StatusOr<OwnershipRecord> Read(const SessionId& session, SessionRole role) const;
  // kUnavailable: they can't be read now, e.g. out of descriptors; nothing is known of any of them.
  absl::StatusOr<Records> ReadAll() const;
  // Of these, this VM's; of the unreadable ones also those whose VM is not known.
  absl::StatusOr<Records> ReadAll(const std::string& vm) const;
  // Forgets a session that has ended.
  void Remove(const SessionId& session, SessionRole role);
  std::string PathOf(const SessionId& session, SessionRole role) const;

 private:
  explicit OwnershipStore(std::string directory) : directory_(std::move(directory)) {}
  absl::Status TakeOverOldRecords();
  absl::Status RepairRecords();
  uint64_t NextSequence() { return sequence_->fetch_add(1, std::memory_order_relaxed) + 1; }

  std::string directory_;
  // The last one given; above all that stand in the directory.
  std::unique_ptr<std::atomic<uint64_t>> sequence_ = std::make_unique<std::atomic<uint64_t>>(0);
};

}  // namespace postcopy
