#include "platform/guest_mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "core/units.h"

namespace postcopy {
namespace {

constexpr uint64_t kEntryPresent = uint64_t{1} << 63;
constexpr uint64_t kEntrySwapped = uint64_t{1} << 62;
constexpr uint64_t kEntriesPerRead = 8192;  // 64 KiB of entries: 32 MiB of memory

Result<void> Advise(uint64_t address, uint64_t size_bytes, int advice, const char* operation) {
  int result;
  do {
    result = madvise(reinterpret_cast<void*>(address), size_bytes, advice);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return ErrnoError(errno, operation);
  return {};
}

Result<void> Protect(uint64_t address, uint64_t size_bytes, int protection,
                     const char* operation) {
  if (mprotect(reinterpret_cast<void*>(address), size_bytes, protection) == 0) return {};
  if (errno == ENOMEM) {
    return Error{ErrorCode::kNotFound,
                 std::string(operation) + ": a part of it is not mapped, or out of memory"};
  }
  return ErrnoError(errno, operation);
}

// Page tables are moved as they are where both addresses lie alike in what a table of the level
// covers: 2 MiB and 1 GiB on x86_64 (mm/mremap.c).
constexpr uint64_t kTableBytes = uint64_t{2} << 20;
constexpr uint64_t kUpperTableBytes = uint64_t{1} << 30;

void* At(uint64_t address) { return reinterpret_cast<void*>(address); }

// Where as much address space is free now, and lies in its tables as `address` does.
Result<uint64_t> FindFreeAlike(uint64_t address, uint64_t size_bytes) {
  const uint64_t alike = size_bytes >= kUpperTableBytes ? kUpperTableBytes : kTableBytes;
  void* mapped = mmap(nullptr, size_bytes + alike, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return ErrnoError(errno, "find address space for guest RAM");
  munmap(mapped, size_bytes + alike);
  const uint64_t begin = reinterpret_cast<uint64_t>(mapped);
  return begin + (address - begin) % alike;
}

// The file again, where its mapping has been lost.
Result<void> MapAgain(const SharedMapping& mapping, int fixed) {
  void* again = mmap(At(mapping.address), mapping.size_bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | fixed, mapping.file, static_cast<off_t>(mapping.file_offset));
  if (again == At(mapping.address)) return {};
  const int error = again == MAP_FAILED ? errno : EEXIST;  // a kernel that knows no NOREPLACE
  if (again != MAP_FAILED) munmap(again, mapping.size_bytes);
  return Error{ErrorCode::kIo, "map guest RAM again: " + ErrnoError(error, "mmap").message};
}

}  // namespace

Result<void> DropGuestPages(uint64_t address, uint64_t size_bytes) {
  return Advise(address, size_bytes, MADV_DONTNEED, "drop pages of guest RAM");
}

Result<void> ForbidHugePages(uint64_t address, uint64_t size_bytes) {
  auto result = Advise(address, size_bytes, MADV_NOHUGEPAGE, "keep huge pages off guest RAM");
  // A kernel without transparent huge pages does not know the advice and needs none.
  if (!result.ok() && result.error().code == ErrorCode::kInvalidArgument) return {};
  return result;
}

Result<void> AllowHugePages(uint64_t address, uint64_t size_bytes) {
  auto result = Advise(address, size_bytes, MADV_HUGEPAGE, "allow huge pages for guest RAM");
  if (!result.ok() && result.error().code == ErrorCode::kInvalidArgument) return {};
  return result;
}

Result<void> ForbidAccess(uint64_t address, uint64_t size_bytes) {
  return Protect(address, size_bytes, PROT_NONE, "make guest RAM inaccessible");
}

Result<void> AllowAccess(uint64_t address, uint64_t size_bytes) {
  return Protect(address, size_bytes, PROT_READ | PROT_WRITE, "make guest RAM accessible again");
}

Result<uint64_t> MoveAway(const SharedMapping& mapping) {
  const auto free = FindFreeAlike(mapping.address, mapping.size_bytes);
  if (!free.ok()) return free;
  // Not MREMAP_FIXED, which would replace what another thread has mapped there since. Without it the
  // address is a hint, and a range of several mappings is refused before anything has changed.
  void* moved = mremap(At(mapping.address), mapping.size_bytes, mapping.size_bytes,
                       MREMAP_MAYMOVE | MREMAP_DONTUNMAP, At(*free));
  if (moved == MAP_FAILED) return ErrnoError(errno, "move the pages of guest RAM");
  const uint64_t moved_to = reinterpret_cast<uint64_t>(moved);
  auto forbidden = ForbidAccess(mapping.address, mapping.size_bytes);
  if (forbidden.ok()) return moved_to;
  // A part of it may be inaccessible. What has moved is in the file, too.
  Error error = forbidden.error();
  auto undone = AllowAccess(mapping.address, mapping.size_bytes);
  if (!undone.ok()) error.message += "; undoing that: " + undone.error().message;
  DropMoved(moved_to, mapping.size_bytes);
  return error;
}

Result<void> MoveBack(const SharedMapping& mapping, uint64_t moved) {
  // Also the look whether it is still there: what follows replaces whatever is.
  auto allowed = AllowAccess(mapping.address, mapping.size_bytes);
  if (!allowed.ok()) return allowed;
  if (mremap(At(moved), mapping.size_bytes, mapping.size_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
             At(mapping.address)) != MAP_FAILED) {
    return {};
  }
  // The kernel may have unmapped the range before it failed.
  DropMoved(moved, mapping.size_bytes);
  return MapAgain(mapping, MAP_FIXED);
}

Result<void> MapLost(const SharedMapping& mapping) {
  return MapAgain(mapping, MAP_FIXED_NOREPLACE);
}

void DropMoved(uint64_t moved, uint64_t size_bytes) { munmap(At(moved), size_bytes); }

Result<PageTableView> PageTableView::Open() {
  UniqueFd file(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoError(errno, "open /proc/self/pagemap");
  return PageTableView(std::move(file));
}

Result<std::optional<uint64_t>> PageTableView::FindPresent(uint64_t address,
                                                           uint64_t size_bytes) const {
  std::vector<uint64_t> entries(kEntriesPerRead);
  const uint64_t end_page = (address + size_bytes) / kPageBytes;
  for (uint64_t page = address / kPageBytes; page < end_page;) {
    const uint64_t wanted = std::min(kEntriesPerRead, end_page - page);
    const ssize_t got = pread(file_.get(), entries.data(), wanted * sizeof(uint64_t),
                              static_cast<off_t>(page * sizeof(uint64_t)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoError(errno, "read /proc/self/pagemap");
    const uint64_t count = static_cast<uint64_t>(got) / sizeof(uint64_t);
    if (count == 0) return Error{ErrorCode::kIo, "read /proc/self/pagemap: it ends early"};
    for (uint64_t i = 0; i < count; ++i) {
      if ((entries[i] & (kEntryPresent | kEntrySwapped)) != 0) {
        return std::optional<uint64_t>((page + i) * kPageBytes);
      }
    }
    page += count;
  }
  return std::optional<uint64_t>();
}

}  // namespace postcopy
