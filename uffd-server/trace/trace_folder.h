// The folder that traces of relocations are written to, a file each: VM-SESSION.trace.
//
// Not responsible for what stands in them (trace_text.h).
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/fault_trace.h"
#include "core/memory_layout.h"
#include "core/session_id.h"

namespace postcopy {

class TraceFolder {
 public:
  // Makes the folder if it is not there. An error, naming the folder: nothing can be written to it.
  static absl::StatusOr<TraceFolder> Open(const std::string& folder);

  // The trace of an arrival whose recorder has ended. `page_bytes`: of each region's backing.
  // Blocks for the disk. Whoever sees the file sees the whole of it.
  absl::Status Write(const std::string& vm, const SessionId& session, const MemoryLayout& layout,
                     const std::vector<uint64_t>& page_bytes, const FaultTrace& recorded) const;

 private:
  explicit TraceFolder(std::string folder) : folder_(std::move(folder)) {}

  std::string folder_;
};

}  // namespace postcopy
