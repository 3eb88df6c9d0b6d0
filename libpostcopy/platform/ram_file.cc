#include "platform/ram_file.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "core/units.h"

namespace postcopy {
namespace {

// A signal makes the kernel undo a whole fallocate(): steps of this size always get on.
constexpr uint64_t kAllocateStepBytes = uint64_t{256} << 20;

std::string RangeText(uint64_t offset, uint64_t size_bytes) {
  return std::to_string(size_bytes) + " bytes at offset " + std::to_string(offset);
}

Result<struct stat> Stat(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return ErrnoError(errno, "look at RAM file");
  return status;
}

int RetryFallocate(int fd, int mode, uint64_t offset, uint64_t size_bytes) {
  int result;
  do {
    result = fallocate(fd, mode, static_cast<off_t>(offset), static_cast<off_t>(size_bytes));
  } while (result != 0 && errno == EINTR);
  return result;
}

}  // namespace

Result<RamFileKind> QueryRamFileKind(int fd) {
  auto status = Stat(fd);
  if (!status.ok()) return status.error();
  if (!S_ISREG(status->st_mode)) return RamFileKind::kNotAFile;
  struct statfs file_system {};
  int result;
  do {
    result = fstatfs(fd, &file_system);
  } while (result != 0 && errno == EINTR);
  if (result != 0) return ErrnoError(errno, "look at RAM file's file system");
  switch (static_cast<unsigned long>(file_system.f_type)) {
    case TMPFS_MAGIC: return RamFileKind::kTmpfs;
    case HUGETLBFS_MAGIC:
      return static_cast<uint64_t>(status->st_blksize) <= kMaxHugePageBytes
                 ? RamFileKind::kHugetlbfs
                 : RamFileKind::kGiantPages;
    default: return RamFileKind::kOtherFile;
  }
}

Result<uint64_t> QueryRamFileSize(int fd) {
  auto status = Stat(fd);
  if (!status.ok()) return status.error();
  return static_cast<uint64_t>(status->st_size);
}

Result<uint64_t> QueryRamFileAllocated(int fd) {
  auto status = Stat(fd);
  if (!status.ok()) return status.error();
  constexpr uint64_t kBlockBytes = 512;  // whatever the file system's own are
  return static_cast<uint64_t>(status->st_blocks) * kBlockBytes;
}

Result<uint64_t> QueryRamFilePageBytes(int fd) {
  const auto kind = QueryRamFileKind(fd);
  if (!kind.ok()) return kind.error();
  if (*kind != RamFileKind::kHugetlbfs && *kind != RamFileKind::kGiantPages) return kPageBytes;
  auto status = Stat(fd);
  if (!status.ok()) return status.error();
  return static_cast<uint64_t>(status->st_blksize);
}

Result<FileId> QueryFileId(int fd) {
  auto status = Stat(fd);
  if (!status.ok()) return status.error();
  return FileId{status->st_dev, status->st_ino};
}

Result<bool> IsSameRamFile(int first_fd, int second_fd) {
  const auto first = QueryFileId(first_fd);
  if (!first.ok()) return first.error();
  const auto second = QueryFileId(second_fd);
  if (!second.ok()) return second.error();
  return *first == *second;
}

Result<void> PunchRamFile(int fd, uint64_t offset, uint64_t size_bytes) {
  if (RetryFallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size_bytes) != 0) {
    return ErrnoError(errno, "empty RAM file, " + RangeText(offset, size_bytes));
  }
  return {};
}

Result<void> AllocateRamFile(int fd, uint64_t offset, uint64_t size_bytes) {
  for (uint64_t done = 0; done < size_bytes;) {
    const uint64_t step = std::min(kAllocateStepBytes, size_bytes - done);
    if (RetryFallocate(fd, FALLOC_FL_KEEP_SIZE, offset + done, step) != 0) {
      return ErrnoError(errno, "allocate RAM file, " + RangeText(offset + done, step));
    }
    done += step;
  }
  return {};
}

Result<void> ReserveHugePages(int fd, uint64_t offset, uint64_t size_bytes) {
  // A shared mapping reserves in the file, where it stays when the mapping goes.
  void* const mapped =
      mmap(nullptr, size_bytes, PROT_NONE, MAP_SHARED, fd, static_cast<off_t>(offset));
  if (mapped == MAP_FAILED) {
    return ErrnoError(errno, "reserve huge pages, " + RangeText(offset, size_bytes));
  }
  munmap(mapped, size_bytes);
  return {};
}

Result<std::optional<FileExtent>> FindRamFileData(int fd, uint64_t from, uint64_t end) {
  if (from >= end) return std::optional<FileExtent>();
  const off_t data = lseek(fd, static_cast<off_t>(from), SEEK_DATA);
  if (data < 0) {
    if (errno == ENXIO) return std::optional<FileExtent>();  // only a hole up to the file's end
    return ErrnoError(errno, "look for data in RAM file from offset " + std::to_string(from));
  }
  if (static_cast<uint64_t>(data) >= end) return std::optional<FileExtent>();
  const off_t hole = lseek(fd, data, SEEK_HOLE);
  if (hole < 0) {
    if (errno == ENXIO) return std::optional<FileExtent>();  // it was freed between the two calls
    return ErrnoError(errno, "look for a hole in RAM file from offset " + std::to_string(data));
  }
  const uint64_t start = static_cast<uint64_t>(data);
  return std::optional<FileExtent>(
      FileExtent{start, std::min(static_cast<uint64_t>(hole), end) - start});
}

int ReadRamFile(int fd, uint64_t offset, std::span<std::byte> to) {
  while (!to.empty()) {
    const ssize_t got = pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno;
    if (got == 0) return ENODATA;
    to = to.subspan(static_cast<size_t>(got));
    offset += static_cast<uint64_t>(got);
  }
  return 0;
}

int WriteRamFile(int fd, uint64_t offset, std::span<const std::byte> from) {
  while (!from.empty()) {
    const ssize_t put = pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return errno;
    if (put == 0) return EIO;
    from = from.subspan(static_cast<size_t>(put));
    offset += static_cast<uint64_t>(put);
  }
  return 0;
}

}  // namespace postcopy
