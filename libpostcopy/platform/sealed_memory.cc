#include "platform/sealed_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "platform/ram_file.h"

namespace postcopy {
namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;

}  // namespace

Result<SealedMemory> SealedMemory::Make(const char* name, uint64_t size_bytes) {
  UniqueFd memfd(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd.valid()) return ErrnoError(errno, "create shared memory");
  if (ftruncate(memfd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return ErrnoError(errno, "size shared memory");
  }
  if (fcntl(memfd.get(), F_ADD_SEALS, kSizeSeals | F_SEAL_SEAL) != 0) {
    return ErrnoError(errno, "seal shared memory");
  }
  return Map(std::move(memfd), size_bytes);
}

Result<SealedMemory> SealedMemory::Open(UniqueFd memfd) {
  const int seals = fcntl(memfd.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kSizeSeals) != kSizeSeals) {
    return Error{ErrorCode::kInvalidArgument, "open shared memory: its size is not sealed"};
  }
  const auto kind = QueryRamFileKind(memfd.get());
  if (!kind.ok()) return kind.error();
  if (*kind != RamFileKind::kTmpfs) {
    return Error{ErrorCode::kInvalidArgument, "open shared memory: it has huge pages"};
  }
  struct stat status {};
  if (fstat(memfd.get(), &status) != 0) return ErrnoError(errno, "query shared memory");
  return Map(std::move(memfd), static_cast<uint64_t>(status.st_size));
}

Result<SealedMemory> SealedMemory::Map(UniqueFd memfd, uint64_t size_bytes) {
  void* const mapped =
      mmap(nullptr, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd.get(), 0);
  if (mapped == MAP_FAILED) return ErrnoError(errno, "map shared memory");
  return SealedMemory(std::move(memfd), {static_cast<std::byte*>(mapped), size_bytes});
}

SealedMemory::SealedMemory(SealedMemory&& other) noexcept
    : memfd_(std::move(other.memfd_)), bytes_(std::exchange(other.bytes_, {})) {}

SealedMemory::~SealedMemory() {
  if (!bytes_.empty()) munmap(bytes_.data(), bytes_.size());
}

}  // namespace postcopy
