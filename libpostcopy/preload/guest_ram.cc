#include "preload/guest_ram.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>

#include "platform/ram_file.h"

namespace postcopy::preload {
namespace {

bool IsShared(int flags) {
  const int type = flags & MAP_TYPE;
  return type == MAP_SHARED || type == MAP_SHARED_VALIDATE;
}

RamFileKind KindOf(int fd) {
  const auto kind = QueryRamFileKind(fd);
  return kind.ok() ? *kind : RamFileKind::kNotAFile;
}

Verdict RecogniseFile(const MmapCall& call) {
  const RamFileKind kind = KindOf(call.fd);
  if (kind == RamFileKind::kNotAFile) return Verdict::kNotGuestRam;
  if (IsShared(call.flags) && (kind == RamFileKind::kTmpfs || kind == RamFileKind::kHugetlbfs)) {
    return Verdict::kSharedFile;
  }
  return call.size_bytes >= kMinRamBytes ? Verdict::kUnsupported : Verdict::kNotGuestRam;
}

}  // namespace

Verdict Recognise(const MmapCall& call) {
  if ((call.flags & MAP_FIXED) == 0) return Verdict::kNotGuestRam;
  if (call.protection != (PROT_READ | PROT_WRITE)) return Verdict::kNotGuestRam;
  if ((call.flags & MAP_ANONYMOUS) == 0) return RecogniseFile(call);
  if (call.size_bytes < kMinRamBytes) return Verdict::kNotGuestRam;
  return IsShared(call.flags) ? Verdict::kUnsupported : Verdict::kAnonymous;
}

std::string_view ReadPath(int fd, PathBuffer& buffer) {
  char link[32];
  std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, buffer.data(), buffer.size() - 1);
  return {buffer.data(), length > 0 ? static_cast<size_t>(length) : 0};
}

std::string_view Problem(const MmapCall& call, TextBuffer& buffer) {
  PathBuffer path_buffer;
  const bool has_file = (call.flags & MAP_ANONYMOUS) == 0;
  const std::string_view path = has_file ? ReadPath(call.fd, path_buffer) : std::string_view();
  const int shown = static_cast<int>(std::min<size_t>(path.size(), 256));
  int length;
  if (!has_file) {
    length = std::snprintf(buffer.data(), buffer.size(),
                           "RAM block of %" PRIu64
                           " bytes is shared memory without a file; use memory-backend-file with "
                           "mem-path on tmpfs and share=on",
                           call.size_bytes);
  } else if (!IsShared(call.flags)) {
    length = std::snprintf(buffer.data(), buffer.size(),
                           "RAM block of %" PRIu64
                           " bytes is a private mapping of %.*s; add share=on to its backend",
                           call.size_bytes, shown, path.data());
  } else {
    length = std::snprintf(buffer.data(), buffer.size(),
                           "RAM block of %" PRIu64
                           " bytes is in %.*s, which is neither on tmpfs nor on hugetlbfs with "
                           "pages of 2 MiB",
                           call.size_bytes, shown, path.data());
  }
  return {buffer.data(), std::min(static_cast<size_t>(std::max(length, 0)), buffer.size() - 1)};
}

}  // namespace postcopy::preload
