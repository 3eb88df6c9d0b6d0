// Tells guest RAM from every other mapping of a QEMU, by the arguments of mmap() alone.
//
// QEMU reserves address space first and then maps each RAM block over the reservation: readable,
// writable, MAP_FIXED. Nothing else it maps looks like this and is large. Not responsible for what
// happens to a block that was found. Allocates nothing and takes no lock.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "wire/agent_protocol.h"

namespace postcopy::preload {

// The arguments of a call that has succeeded; `address` is its result.
struct MmapCall {
  uint64_t address = 0;
  uint64_t size_bytes = 0;
  int protection = 0;
  int flags = 0;
  int fd = -1;
  uint64_t file_offset = 0;
};

// Smaller private blocks (firmware, tables) travel in the device state and are left alone.
inline constexpr uint64_t kMinRamBytes = uint64_t{16} << 20;

enum class Verdict {
  kNotGuestRam,
  kSharedFile,   // can be a source and a destination
  kAnonymous,    // may be guest RAM or video RAM: the daemon knows which
  kUnsupported,  // guest RAM that can't be hooked; Problem() says why
};
// errno may change.
Verdict Recognise(const MmapCall& call);

// Where the descriptor points, as /proc/self/fd shows it; empty if that can't be read.
using PathBuffer = std::array<char, wire::kMaxBlockPathBytes + 1>;
std::string_view ReadPath(int fd, PathBuffer& buffer);

// Why the mapping can't be relocated, as a sentence for the operator.
// REQUIRES: Recognise(call) was kUnsupported.
using TextBuffer = std::array<char, 512>;
std::string_view Problem(const MmapCall& call, TextBuffer& buffer);

}  // namespace postcopy::preload
