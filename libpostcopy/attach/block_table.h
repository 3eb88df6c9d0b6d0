// The RAM blocks that a hook has found, in a form that can be written from inside mmap().
//
// Add() and RemoveOverlapping() allocate nothing, take no lock and make no system call; they work
// before any constructor has run (the table is all zero then) and in a signal handler. One thread,
// the collector, reads the table and is the only one that closes descriptors. Not responsible for
// recognising guest RAM (preload/) and for telling anyone (attach_client.h).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "wire/agent_protocol.h"

namespace postcopy {

class BlockTable {
 public:
  constexpr BlockTable() = default;
  BlockTable(const BlockTable&) = delete;
  BlockTable& operator=(const BlockTable&) = delete;

  struct NewBlock {
    wire::BlockKind kind = wire::BlockKind::kAnonymous;
    uint64_t address = 0;  // in this process; with the size, page-aligned
    uint64_t size_bytes = 0;
    uint64_t file_offset = 0;
    int ram_file = -1;       // kSharedFile: the table's from here on, if added
    std::string_view name;   // cut to kMaxRegionNameBytes
    std::string_view path;   // cut to kMaxBlockPathBytes
  };
  enum class AddOutcome { kAdded, kAlreadyThere, kFull };
  // kAlreadyThere: a block covers the range already (a VMM maps a part of its RAM anew to repair a
  // page); nothing changes. A block that overlaps otherwise is removed first. Any thread.
  // kFull: 64 blocks are there, or were and have not been collected yet.
  AddOutcome Add(const NewBlock& block);

  // Removes each block that overlaps the range; true if there was one. Any thread.
  bool RemoveOverlapping(uint64_t address, uint64_t size_bytes);

  // Notes why guest RAM can't be relocated; the first reason stays. False: there was one already.
  // Any thread.
  bool SetProblem(std::string_view text);

  // True while there is a block or a problem, that is, something to register. Any thread.
  bool HasSomething() const { return changes_.load(std::memory_order_relaxed) != 0; }

  // --- the collector only ----------------------------------------------------------------------

  struct Block {
    uint64_t id = 0;    // counts the blocks of this process, from 1
    int ram_file = -1;  // the table's; valid until the next Collect()
    wire::RegisterBlock block;
  };
  struct Snapshot {
    uint64_t changes = 0;  // differs from the last one if anything was added or removed
    std::vector<Block> blocks;  // in the order in which they were added
    std::string problem;
  };
  // Closes the descriptors of removed blocks, then reads what is there. A block added meanwhile may
  // be missing; then `changes` is older than CountChanges() says.
  Snapshot Collect();
  // Closes every descriptor of the table, which is not used any more.
  void CloseAll();
  uint64_t CountChanges() const { return changes_.load(std::memory_order_acquire); }

 private:
  // kFree → kClaimed → kLive by Add(); kLive → kRetired by RemoveOverlapping(); kRetired → kFree by
  // Collect(). The plain fields are written in kClaimed only and read, by the collector, in kLive
  // and kRetired, which only the collector ends.
  enum State : uint64_t { kFree = 0, kClaimed, kLive, kRetired };
  // A state with the number of the block that the slot is for, so that a slot that another block has
  // got meanwhile is not taken for the one that was looked at.
  static constexpr uint64_t kStateBits = 2;
  static constexpr uint64_t WithId(State state, uint64_t id) { return id << kStateBits | state; }
  static constexpr State StateIn(uint64_t word) {
    return static_cast<State>(word & ((uint64_t{1} << kStateBits) - 1));
  }
  struct Slot {
    // The release store of kLive publishes the fields to the acquire load of whoever sees kLive;
    // the collector's release store of kFree hands them to the next Add(), which acquires by CAS.
    std::atomic<uint64_t> state = kFree;  // WithId(); kFree and kClaimed: of no block yet
    std::atomic<uint64_t> address = 0;
    std::atomic<uint64_t> size_bytes = 0;
    uint64_t id = 0;
    uint64_t file_offset = 0;
    int ram_file = 0;  // valid for kSharedFile
    wire::BlockKind kind = {};
    std::array<char, kMaxRegionNameBytes + 1> name = {};
    std::array<char, wire::kMaxBlockPathBytes + 1> path = {};
  };

  std::array<Slot, wire::kMaxAgentBlocks> slots_ = {};
  std::atomic<uint64_t> last_id_ = 0;
  // Incremented with release after each change; CountChanges() acquires.
  std::atomic<uint64_t> changes_ = 0;
  // 0 none, 1 being written, 2 there: the release store of 2 publishes the text.
  std::atomic<int> problem_state_ = 0;
  std::array<char, wire::kMaxAgentTextBytes + 1> problem_ = {};
};

}  // namespace postcopy
