// The fence: making RAM blocks inaccessible to the VMM itself, so that a guest that another process
// starts here after it was handed to another host touches none of its memory.
//
// Runs in the VMM's process, on the connection thread. A guest that is started behind the fence ends
// its VMM by SIGSEGV; the memory itself stays whole, and other processes read it through the RAM file.
// Not responsible for when a fence is laid or lifted (the daemon).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "attach/block_table.h"
#include "core/result.h"

namespace postcopy {

// Destroying it lifts nothing: what is fenced stays so for as long as the process lives.
class Fence {
 public:
  // Makes every block inaccessible. On failure none is; the message names the block that failed, and a
  // block that could not be made accessible again. Takes microseconds a GiB for a block on tmpfs, some
  // 30 ms a GiB for one whose pages cannot be moved away (guest_mapping.h).
  static Result<Fence> Lay(std::span<const BlockTable::Block> blocks);

  // Makes readable and writable what is fenced of `blocks`, which are those that the VMM still has
  // mapped. On failure the others are all the same, and those that failed stay in the fence.
  Result<void> Lift(std::span<const BlockTable::Block> blocks);

  // What is not among `blocks` has been unmapped by the VMM: it leaves the fence.
  void Forget(std::span<const BlockTable::Block> blocks);

  bool Has(uint64_t block_id) const;
  bool IsEmpty() const { return parts_.empty(); }

 private:
  struct Part {
    uint64_t block_id = 0;
    uint64_t size_bytes = 0;
    std::optional<uint64_t> moved;  // where its pages are; nothing: at their address
    bool lost = false;              // not mapped any more, by a lift that failed
  };

  Fence() = default;
  static Result<Part> LayOne(const BlockTable::Block& block);
  static Result<void> LiftOne(const BlockTable::Block& block, Part& part);

  std::vector<Part> parts_;
};

}  // namespace postcopy
