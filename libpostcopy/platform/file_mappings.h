// Who on this host has mapped a file, whether it has a hook or not: as /proc/<pid>/maps tells.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "platform/ram_file.h"

namespace postcopy {

struct FileMapping {
  int pid = 0;
  std::string path;  // as that process has opened it
  FileId file_id;
  uint64_t file_offset = 0;
  uint64_t size_bytes = 0;
};

// Every mapping of one of `files` by another process than `except_pid` and this one. What may not be read
// (processes of other users need CAP_SYS_PTRACE), and processes in an uninterruptible wait, are left out.
// Reads the maps of all processes, so it takes longer on a host with many.
std::vector<FileMapping> FindMappings(const std::vector<FileId>& files, int except_pid);

}  // namespace postcopy
