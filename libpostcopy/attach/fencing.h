// The fence: making RAM blocks inaccessible to the VMM itself, so that a guest that another process
// starts here after it was handed to another host touches none of its memory.
//
// Runs in the VMM's process, on the connection thread. A guest that is started behind the fence ends
// its VMM by SIGSEGV; the memory itself stays whole, and other processes read it through the RAM file.
// Not responsible for when a fence is laid or lifted (the daemon).
#pragma once

#include <span>

#include "attach/block_table.h"
#include "core/result.h"

namespace postcopy {

// Makes every block inaccessible. On failure none is; the message names the block that failed, and a
// block that could not be made accessible again.
Result<void> FenceBlocks(std::span<const BlockTable::Block> blocks);

// Makes every block readable and writable. On failure the others are all the same.
Result<void> UnfenceBlocks(std::span<const BlockTable::Block> blocks);

}  // namespace postcopy
