// What a durable record says of one session: who owns its VM. One JSON object, in one sector.
//
// Pure: from a record to a file's content and back. Not responsible for files (ownership_store.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "core/session_id.h"
#include "core/session_state.h"

namespace postcopy {

enum class OwnershipMark {
  kPrepared,    // source: nothing has been handed over
  kOffered,     // destination: nothing has been handed to it
  kHandedOver,  // source: the destination owns it; this host never runs it again
  kRolledBack,  // source: it stays here
  kOwner,       // destination: owns it
  kNever,       // destination: has not run it and never will
  kArrived,     // destination: owns it and has all its memory; the source has yet to be told
  kIncomplete,  // destination: owns it; a part of its memory was lost for good
  kCommitted,   // either: all memory has arrived, and both know
};

struct OwnershipRecord {
  SessionId session;
  SessionRole role = SessionRole::kSource;  // of this host; it may have a record in each
  std::string vm;    // its name on this host
  std::string peer;  // the other daemon's control address
  OwnershipMark mark = OwnershipMark::kPrepared;
  bool run = true;   // the guest is to run (it was not paused by its operator)
  bool keep_source = false;  // source: its VMM stays after the commit
  int vmm_pid = 0;           // destination: of the VMM that has it; 0: not recorded

  friend bool operator==(const OwnershipRecord&, const OwnershipRecord&) = default;
};

// One sector: overwritten whole or not at all.
inline constexpr size_t kOwnershipRecordBytes = 512;

// "source", "destination".
std::string_view NameOf(SessionRole role);

// "prepared", "handed-over": a mark as it stands in the record.
std::string_view NameOf(OwnershipMark mark);

// The content of the record's file, kOwnershipRecordBytes long; it reads as `record` again. Nothing if
// the names are too long together, or not UTF-8: then no record of the session fits, whatever its mark.
// A VM's name of 128 and a host's name of 253 characters fit.
std::optional<std::string> FormatOwnershipRecord(const OwnershipRecord& record);

// Nothing unless `content` is such a record. Members that it does not know are passed over.
std::optional<OwnershipRecord> ParseOwnershipRecord(std::string_view content);

}  // namespace postcopy
