// Small files whose content must survive a crash of the host.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/result.h"

namespace postcopy {

// Makes the directory and its parents. An existing one is a success.
Result<void> MakeDirectory(const std::string& path);

// Replaces `path` with a file of this content; when it returns ok, content and name are on disk.
// Until then a reader sees the old file, whole, or the new one, whole. Blocks for the disk.
Result<void> WriteDurably(const std::string& path, std::string_view content);

// Makes `path` with this content unless there is such a file; false: there is one, untouched. When it
// returns true, content and name are on disk; when it fails, `path` is as it was.
Result<bool> CreateDurably(const std::string& path, std::string_view content);

// Overwrites the parts of an existing file that begin at `offsets`, in place, each with `content`; when
// it returns ok, all of them are on disk. Each is a write of at most 512 bytes into one sector, so a
// reader, also after a crash, sees the old content there or the new one; of several parts the first
// may be new and the others old. Much cheaper than WriteDurably(), since the file's name and size stay
// (docs/decisions/0004). kNotFound: no such file. REQUIRES: content.size() <= 512.
Result<void> OverwriteDurably(const std::string& path, std::string_view content,
                              std::span<const uint64_t> offsets);

// kNotFound: no such file. kUnavailable: out of descriptors or memory. At most `limit_bytes` are read.
Result<std::string> ReadWholeFile(const std::string& path, size_t limit_bytes);

// The names in a folder, in no order. kNotFound: no such folder. kUnavailable: out of descriptors or
// memory.
Result<std::vector<std::string>> ListFolder(const std::string& path);

}  // namespace postcopy
