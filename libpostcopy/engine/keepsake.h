// What a VMM keeps for its host's daemon while its memory arrives: the state of every page, and
// what else the next daemon needs to go on when this one ends.
//
// It is memory that both have: the daemon's engine writes each transition of a page into it
// (PageMap), the VMM's hook only holds the descriptor. So it is as old as the VMM's userfaultfd and
// goes with it, and whatever moment the daemon ends at, it says what was here.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>

#include "core/result.h"
#include "platform/sealed_memory.h"
#include "wire/keepsake_header.h"

namespace postcopy {

class Keepsake {
 public:
  // Of a session that begins: every page is missing. kInvalidArgument: the header breaks a limit.
  // Fails also if no memory can be had.
  static Result<Keepsake> Make(wire::KeepsakeHeader header);
  // As a VMM gives it back. kProtocol, kUnsupported, kInvalidArgument: it is none that this daemon
  // can read.
  static Result<Keepsake> Open(UniqueFd memfd);

  const wire::KeepsakeHeader& header() const { return header_; }
  MemoryLayout layout() const { return wire::LayoutOf(header_); }
  // When the guest was started at the destination, in microseconds since the epoch; 0: it was not,
  // as far as any daemon has come to note it.
  int64_t resumed_at_us() const { return resumed().load(std::memory_order_relaxed); }
  void NoteResumed(int64_t at_us) { resumed().store(at_us, std::memory_order_relaxed); }
  // One a page, region after region: a PageMap's. Mapped until this object ends.
  std::span<std::atomic<uint8_t>> page_bytes() const;
  const UniqueFd& memfd() const { return memory_.memfd(); }

 private:
  Keepsake(wire::KeepsakeHeader header, SealedMemory memory)
      : header_(std::move(header)), memory_(std::move(memory)) {}

  std::atomic<int64_t>& resumed() const;

  wire::KeepsakeHeader header_;
  SealedMemory memory_;
};

}  // namespace postcopy
