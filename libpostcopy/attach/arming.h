// Arming: making every access to a RAM block fault, whatever was there before.
//
// Runs in the VMM's process, on the connection thread. Not responsible for whether the VM may be
// armed now (the daemon) and for what becomes of the faults (engine/).
#pragma once

#include <span>
#include <string>

#include "attach/block_table.h"
#include "core/result.h"
#include "platform/guest_mapping.h"
#include "platform/unique_fd.h"

namespace postcopy {

// Empties the blocks, registers them with a new userfaultfd and checks that no page of theirs is
// present. `device_fd` is /dev/userfaultfd or -1, as for CreateUserfault(). What the blocks held is
// lost, also on failure; then nothing is registered. Takes longer the more was populated. If
// the VM touches a block meanwhile, its thread waits in a fault, or this fails.
Result<UniqueFd> ArmBlocks(int device_fd, std::span<const BlockTable::Block> blocks,
                           const PageTableView& page_table);

// Lets blocks that were armed have huge pages again. Best effort: it costs speed, nothing else.
void AllowHugePagesAgain(std::span<const BlockTable::Block> blocks);

}  // namespace postcopy
