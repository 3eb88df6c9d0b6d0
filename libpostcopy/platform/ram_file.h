// Operations on the descriptor of a shared RAM file (tmpfs or hugetlbfs): each says what happened
// and decides nothing.
//
// Not responsible for: where the file is mapped (guest_mapping.h) and which of its pages are wanted.
// EINTR is retried here. Offsets and sizes are bytes; those of PunchRamFile() and AllocateRamFile()
// are multiples of the file's page size. No function touches the descriptor's file position except
// FindRamFileData(), so two threads may share a descriptor for everything else. Needs Linux 3.5.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "core/result.h"

namespace postcopy {

enum class RamFileKind {
  kTmpfs,      // a regular file on tmpfs, or a memfd
  kHugetlbfs,  // a regular file on hugetlbfs, or a memfd with MFD_HUGETLB; no write(), no holes told
  kGiantPages,  // the same, with pages larger than kMaxHugePageBytes
  kOtherFile,  // a regular file elsewhere
  kNotAFile,   // a device, a socket, a directory…
};
Result<RamFileKind> QueryRamFileKind(int fd);

Result<uint64_t> QueryRamFileSize(int fd);

// The size of the pages that the file is made of: kPageBytes, or hugetlbfs's.
Result<uint64_t> QueryRamFilePageBytes(int fd);

// Bytes that the file has pages for, in memory or in swap.
Result<uint64_t> QueryRamFileAllocated(int fd);
// Which file it is, however it was opened: st_dev and st_ino. {0, 0} is no file.
struct FileId {
  uint64_t device = 0;
  uint64_t inode = 0;
  friend bool operator==(const FileId&, const FileId&) = default;
};
Result<FileId> QueryFileId(int fd);

// True if both descriptors refer to the same file, however they were opened.
Result<bool> IsSameRamFile(int first_fd, int second_fd);

// Frees the pages of the range: it reads as zero, and every process that has it mapped faults
// again. Raises no userfaultfd event. The file keeps its size.
Result<void> PunchRamFile(int fd, uint64_t offset, uint64_t size_bytes);

// Gives the range pages of its own (zero where there was a hole) and keeps the file's size, so that
// a later write allocates nothing. Does not map anything. On failure a part may be allocated.
// kIo with ENOSPC's text: the file system or its memory limit is full.
Result<void> AllocateRamFile(int fd, uint64_t offset, uint64_t size_bytes);

// hugetlbfs only: takes pages for the range from the pool's free ones, for whoever maps it and touches it
// later. What was punched has lost its reservation. kIo: the pool has not so many.
Result<void> ReserveHugePages(int fd, uint64_t offset, uint64_t size_bytes);

struct FileExtent {
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
  friend bool operator==(const FileExtent&, const FileExtent&) = default;
};
// The first run of data at or after `from` and before `end`, cut to that window; nullopt: all of
// the window is a hole. Moves the file position: one thread at a time per open file description.
// On hugetlbfs everything up to the end of the file counts as data.
Result<std::optional<FileExtent>> FindRamFileData(int fd, uint64_t from, uint64_t end);

// 0 when all of `to` was read, else the errno; ENODATA when the file ends before. Holes read as
// zero and stay holes.
int ReadRamFile(int fd, uint64_t offset, std::span<std::byte> to);
// 0 when all of `from` was written, else the errno. The page cache of the file holds it then.
int WriteRamFile(int fd, uint64_t offset, std::span<const std::byte> from);

}  // namespace postcopy
