// Who on this host has mapped a file, whether it has a hook or not: as /proc/<pid>/maps tells.
#pragma once

#include <vector>

#include "platform/ram_file.h"
#include "server/vm_registry.h"

namespace postcopy {

// Every mapping of one of `files` by another process than `except_pid` and this one; `vm` is empty. What this
// daemon may not read (other users' processes need CAP_SYS_PTRACE) is left out. Reads the maps of all
// processes: some ten ms on a host with hundreds.
std::vector<FileBlock> FindMappings(const std::vector<FileId>& files, int except_pid);

}  // namespace postcopy
