// What stands at the start of a keepsake (docs/agent-protocol.md, "Keepsake"): which session it is
// of, where its regions lie, where its pages come from.
//
// Pure: bytes to fields and back. Not responsible for the memory that it is in (engine/keepsake.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/memory_layout.h"
#include "core/result.h"
#include "core/session_id.h"

namespace postcopy::wire {

// The states of pages begin there.
inline constexpr size_t kKeepsakeHeaderBytes = 64 * 1024;
// Where, before them, the time of RESUME stands.
inline constexpr size_t kKeepsakeResumedOffset = kKeepsakeHeaderBytes - 8;
inline constexpr size_t kMaxKeepsakeAddresses = 64;
inline constexpr size_t kMaxKeepsakeAddressBytes = 300;

struct KeepsakeRegion {
  Region region;
  uint64_t address = 0;  // in the VMM's address space, page-aligned

  friend bool operator==(const KeepsakeRegion&, const KeepsakeRegion&) = default;
};

struct KeepsakeHeader {
  SessionId session;
  std::vector<KeepsakeRegion> regions;      // in the order of the session's layout
  std::vector<std::string> data_addresses;  // of the source's page server, host:port
  // Of the source's daemon; empty: not known (keepsakes of earlier daemons lack it).
  std::string control_address = {};

  friend bool operator==(const KeepsakeHeader&, const KeepsakeHeader&) = default;
};

// The session's layout.
MemoryLayout LayoutOf(const KeepsakeHeader& header);

// kInvalidArgument, naming the field, if it breaks a limit.
Result<void> Validate(const KeepsakeHeader& header);

// kKeepsakeHeaderBytes, or fewer: what follows is zero. REQUIRES: Validate(header).ok().
std::vector<std::byte> EncodeKeepsakeHeader(const KeepsakeHeader& header);

// Of the first kKeepsakeHeaderBytes. kProtocol: they are no such header, or one that breaks a
// limit. kUnsupported: another version's.
Result<KeepsakeHeader> DecodeKeepsakeHeader(std::span<const std::byte> bytes);

}  // namespace postcopy::wire
