// mmap, mmap64 and munmap in front of libc's: the real call first, by system call, then a look at
// what was mapped.
//
// Not responsible for anything else; errno is the real call's, and nothing is thrown. The system
// call is made directly because dlsym() may allocate, and so call mmap(), before this library is
// ready.
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>

#include "core/units.h"
#include "preload/attachment.h"
#include "preload/guest_ram.h"

namespace {

static_assert(sizeof(off_t) == 8, "the system call takes the offset as it is");

uint64_t RoundUpToPages(size_t size_bytes) {
  return (size_bytes + postcopy::kPageBytes - 1) / postcopy::kPageBytes * postcopy::kPageBytes;
}

void* MapAndLook(void* address, size_t size_bytes, int protection, int flags, int fd,
                 off_t offset) noexcept {
  const long result = syscall(SYS_mmap, address, size_bytes, protection, flags, fd, offset);
  // Everything that is not MAP_FIXED leaves here after one comparison.
  if (result == -1 || (flags & MAP_FIXED) == 0) return reinterpret_cast<void*>(result);
  const int error = errno;
  const postcopy::preload::MmapCall call{static_cast<uint64_t>(result),
                                         RoundUpToPages(size_bytes),
                                         protection,
                                         flags,
                                         fd,
                                         static_cast<uint64_t>(offset)};
  const auto verdict = postcopy::preload::Recognise(call);
  if (verdict != postcopy::preload::Verdict::kNotGuestRam) {
    postcopy::preload::RecordMapping(call, verdict);
  }
  errno = error;
  return reinterpret_cast<void*>(result);
}

}  // namespace

extern "C" {

__attribute__((visibility("default"))) void* mmap(void* address, size_t size_bytes, int protection,
                                                  int flags, int fd, off_t offset) noexcept {
  return MapAndLook(address, size_bytes, protection, flags, fd, offset);
}

__attribute__((visibility("default"))) void* mmap64(void* address, size_t size_bytes,
                                                    int protection, int flags, int fd,
                                                    off64_t offset) noexcept {
  return MapAndLook(address, size_bytes, protection, flags, fd, offset);
}

__attribute__((visibility("default"))) int munmap(void* address, size_t size_bytes) noexcept {
  // Before the real call: afterwards the addresses may already be somebody else's.
  const int error = errno;
  postcopy::preload::ForgetMapping(reinterpret_cast<uintptr_t>(address),
                                   RoundUpToPages(size_bytes));
  errno = error;
  return static_cast<int>(syscall(SYS_munmap, address, size_bytes));
}

}  // extern "C"
