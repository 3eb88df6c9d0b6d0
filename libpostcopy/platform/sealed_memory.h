// Memory that outlives a process: a memfd of fixed size, mapped shared.
//
// Its seals forbid to change its size, so whoever maps what another process made cannot be ended by
// SIGBUS. Not responsible for what is in it. Needs Linux 3.17.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

class SealedMemory {
 public:
  // Zeros. `name` shows in /proc/<pid>/fd. A failure names the operation.
  static Result<SealedMemory> Make(const char* name, uint64_t size_bytes);
  // What another process has made. kInvalidArgument: it is no memfd, its size may still change, or it
  // has huge pages: one that is freed and cannot be had again would end this process by SIGBUS.
  static Result<SealedMemory> Open(UniqueFd memfd);

  SealedMemory(SealedMemory&& other) noexcept;
  SealedMemory& operator=(SealedMemory&&) = delete;
  ~SealedMemory();

  // Mapped until this object ends. Whoever else has the descriptor may change it at any time.
  std::span<std::byte> bytes() const { return bytes_; }
  const UniqueFd& memfd() const { return memfd_; }

 private:
  SealedMemory(UniqueFd memfd, std::span<std::byte> bytes)
      : memfd_(std::move(memfd)), bytes_(bytes) {}
  static Result<SealedMemory> Map(UniqueFd memfd, uint64_t size_bytes);

  UniqueFd memfd_;
  std::span<std::byte> bytes_;  // empty: moved from
};

}  // namespace postcopy
