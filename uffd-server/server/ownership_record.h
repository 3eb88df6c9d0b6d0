// What a durable record says of one session: who owns its VM; and the content of its file.
//
// The file holds everything twice, in two copies that begin at multiples of a block. A copy is two
// lines of JSON, each with a checksum of its own: the first, of one sector, is what changes (the
// mark); the second is what was known when the session was prepared. A change overwrites the first
// line of both copies; each is a sector, which a disk writes whole or not at all. So after a write
// that has ended both copies say the same, and one damaged copy changes nothing; after one that was
// cut off each copy says what was before or what was to be.
//
// Pure: from a record to a file's content and back. Not responsible for files (ownership_store.h).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/session_id.h"
#include "core/session_state.h"
#include "platform/process_identity.h"
#include "platform/ram_file.h"

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

// Where a RAM block of the source lies, to be found again when its VMM has gone.
struct RecordedBlock {
  std::string name;  // the region's
  std::string path;  // of its RAM file, as /proc/<pid>/fd showed it
  FileId file_id;
  uint64_t file_offset = 0;
  uint64_t size_bytes = 0;

  friend bool operator==(const RecordedBlock&, const RecordedBlock&) = default;
};

struct OwnershipRecord {
  SessionId session;
  SessionRole role = SessionRole::kSource;  // of this host; it may have a record in each
  std::string vm;                           // its name on this host
  std::string peer;                         // the other daemon's control address
  OwnershipMark mark = OwnershipMark::kPrepared;
  bool run = true;                    // the guest is to run (it was not paused by its operator)
  bool keep_source = false;           // source: its VMM stays after the commit
  ProcessIdentity vmm = {};           // the VMM that has it here
  // Source: in the order of the session's layout. Empty where it could change after the state was taken.
  std::vector<RecordedBlock> memory = {};
  // Source: what its RAM files had allocated when the guest had stopped, together; 0: not known. If they have
  // less, pages that were never written were reclaimed, or memory was lost since.
  uint64_t allocated_bytes = 0;
  // Source: the VMM's backends that are to empty their files when it ends, and do not meanwhile.
  std::vector<std::string> emptied_at_end = {};
  // Source, rolled back: it may stand still here; otherwise it goes on, and how it stands is not this
  // session's doing.
  bool to_resume = false;
  bool ran_there = false;  // source: it is known to have run at the destination

  friend bool operator==(const OwnershipRecord&, const OwnershipRecord&) = default;
};

// One sector: overwritten whole or not at all.
inline constexpr size_t kOwnershipLineBytes = 512;
inline constexpr size_t kOwnershipBlockBytes = 4096;
inline constexpr size_t kMaxOwnershipFileBytes = 1 << 20;

// "source", "destination".
std::string_view NameOf(SessionRole role);

// "prepared", "handed-over": a mark as it stands in the record.
std::string_view NameOf(OwnershipMark mark);

// The content of the record's file; it reads as `record` again. `sequence` orders the records of a
// host. Nothing if a text is not UTF-8 (a RAM file's path may be anything), if the mark is not one
// of the role, or if they are too long together: then no record of the session fits.
std::optional<std::string> FormatOwnershipFile(const OwnershipRecord& record, uint64_t sequence);

// What the file's first line holds, from one record of a session to another: mark, `run`, to_resume, ran_there,
// allocated_bytes.
void CopyOwnershipLine(const OwnershipRecord& from, OwnershipRecord& into);
// That line, kOwnershipLineBytes long, and where it is overwritten.
std::string FormatOwnershipLine(const OwnershipRecord& record, uint64_t sequence);
std::vector<uint64_t> OwnershipLineOffsets(std::string_view content);

struct ParsedOwnership {
  // Both lines of a copy, or of two. Nothing: no copy of one of them is whole.
  std::optional<OwnershipRecord> record;
  uint64_t sequence = 0;
  bool whole = false;  // both copies are there and say the same
  // Without a record: what is known all the same. A `mark` and `run` are then worth nothing.
  std::optional<OwnershipRecord> details;
};
ParsedOwnership ParseOwnershipFile(std::string_view content);

// A record as version 0.5 and earlier wrote it: one line, without a checksum.
std::optional<OwnershipRecord> ParseOldOwnershipRecord(std::string_view content);

}  // namespace postcopy
