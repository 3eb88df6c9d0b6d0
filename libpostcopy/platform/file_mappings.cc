#include "platform/file_mappings.h"

#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>

namespace postcopy {
namespace {

// 7f0000000000-7f0000200000 rw-s 00001000 00:19 1234    /dev/shm/web1
std::optional<FileMapping> ParseMapping(const std::string& line, int pid) {
  uint64_t begin = 0, end = 0, offset = 0, inode = 0;
  unsigned int major = 0, minor = 0;
  int path_at = 0;
  constexpr int kNumbers = 6;
  if (std::sscanf(line.c_str(), "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %x:%x %" SCNu64 " %n", &begin,
                  &end, &offset, &major, &minor, &inode, &path_at) != kNumbers) {
    return std::nullopt;
  }
  FileMapping mapping;
  mapping.pid = pid;
  mapping.path = line.substr(std::min(static_cast<size_t>(path_at), line.size()));
  mapping.file_id = {makedev(major, minor), inode};
  mapping.file_offset = offset;
  mapping.size_bytes = end - begin;
  return mapping;
}

// In an uninterruptible wait, maybe with the lock of its mappings, for which a reader of them would wait.
bool IsStuck(const std::filesystem::path& process) {
  std::ifstream stat(process / "stat");
  std::string line;
  std::getline(stat, line);
  const size_t name_end = line.rfind(')');
  return name_end != std::string::npos && line.substr(name_end).starts_with(") D");
}

}  // namespace

std::vector<FileMapping> FindMappings(const std::vector<FileId>& files, int except_pid) {
  std::vector<FileMapping> found;
  std::error_code error;
  for (std::filesystem::directory_iterator entry("/proc", error), end; !error && entry != end;
       entry.increment(error)) {
    const int pid = std::atoi(entry->path().filename().c_str());  // 0: it is no process
    if (pid == 0 || pid == except_pid || pid == getpid() || IsStuck(entry->path())) continue;
    std::ifstream maps(entry->path() / "maps");
    for (std::string line; std::getline(maps, line);) {
      auto mapping = ParseMapping(line, pid);
      if (!mapping.has_value() ||
          std::find(files.begin(), files.end(), mapping->file_id) == files.end()) {
        continue;
      }
      found.push_back(*std::move(mapping));
    }
  }
  return found;
}

}  // namespace postcopy
