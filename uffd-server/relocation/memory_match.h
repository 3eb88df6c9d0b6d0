// Which of the RAM mappings that a hook saw is which RAM backend of its VMM.
//
// Pure. A shared file is known by its path, or, where the VMM opened it another way (an inherited
// descriptor, an unlinked file), by its size if only one is left of that size. Anonymous memory is
// known by its size alone, so two of one size are refused.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "core/memory_layout.h"
#include "relocation/progress.h"
#include "server/vm_registry.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

struct MatchedMemory {
  MemoryLayout layout;         // regions named as the VMM names its backends, in its order
  std::vector<size_t> blocks;  // for each region its position in VmRecord::blocks
};

// kFailedPrecondition, naming the backend, if one has no mapping or if, at the source, it is not in
// a shared file.
absl::StatusOr<MatchedMemory> MatchMemory(const VmRecord& record, const VmmDescription& vmm,
                                          SessionRole role);

}  // namespace postcopy
