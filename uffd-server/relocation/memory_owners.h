// Whether guest RAM that is about to be emptied is the memory of the waiting VM alone.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "server/vm_registry.h"

namespace postcopy {

// ok: none of `blocks` (positions in vm.blocks) shares bytes of a file with another block of this
// VM, or with a block of another VM of `all`. kFailedPrecondition names the file and the VM, or the process
// that is no VM, whose memory would be lost otherwise. Pure.
absl::Status CheckMemoryIsItsOwn(const VmRecord& vm, const std::vector<size_t>& blocks,
                                 const std::vector<FileBlock>& all);

// The same with what VMs have registered and what processes of this host have mapped, as far as
// FindMappings() sees them.
absl::Status CheckMemoryIsNotMapped(const VmRegistry& registry, const VmRecord& vm,
                                      const std::vector<size_t>& blocks);

}  // namespace postcopy
