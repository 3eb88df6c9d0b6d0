#include "attach/fencing.h"

#include <algorithm>
#include <string>

#include "platform/guest_mapping.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

Error In(const char* operation, const BlockTable::Block& block, const Error& error) {
  const wire::RegisterBlock& what = block.block;
  const std::string& label = what.name.empty() ? what.path : what.name;
  return {error.code, std::string(operation) + " RAM block " +
                          (label.empty() ? std::string("(anonymous)") : label) + " of " +
                          std::to_string(what.size_bytes) + " bytes: " + error.message};
}

SharedMapping MappingOf(const BlockTable::Block& block) {
  return {block.block.address, block.block.size_bytes, block.ram_file, block.block.file_offset};
}

// Pages of hugetlbfs are too few for moving them to be worth anything.
bool CanBeMoved(const BlockTable::Block& block) {
  if (block.block.kind != wire::BlockKind::kSharedFile) return false;
  const auto kind = QueryRamFileKind(block.ram_file);
  return kind.ok() && *kind == RamFileKind::kTmpfs;
}

const BlockTable::Block* Find(std::span<const BlockTable::Block> blocks, uint64_t id) {
  const auto found = std::find_if(blocks.begin(), blocks.end(),
                                  [id](const BlockTable::Block& block) { return block.id == id; });
  return found == blocks.end() ? nullptr : &*found;
}

}  // namespace

Result<Fence::Part> Fence::LayOne(const BlockTable::Block& block) {
  Part part;
  part.block_id = block.id;
  part.size_bytes = block.block.size_bytes;
  if (CanBeMoved(block)) {
    auto moved = MoveAway(MappingOf(block));
    if (moved.ok()) {
      part.moved = *moved;
      return part;
    }
  }
  auto forbidden = ForbidAccess(block.block.address, block.block.size_bytes);
  if (forbidden.ok()) return part;
  Error error = In("fence", block, forbidden.error());
  // A part of it may have been changed.
  auto undone = LiftOne(block, part);
  if (!undone.ok()) error.message += "; undoing that: " + undone.error().message;
  return error;
}

Result<void> Fence::LiftOne(const BlockTable::Block& block, Part& part) {
  Result<void> lifted;
  if (part.lost) {
    lifted = MapLost(MappingOf(block));
  } else if (part.moved.has_value()) {
    lifted = MoveBack(MappingOf(block), *part.moved);
    part.lost = !lifted.ok() && lifted.error().code == ErrorCode::kIo;
    if (part.lost) part.moved.reset();
  } else {
    lifted = AllowAccess(block.block.address, block.block.size_bytes);
  }
  if (!lifted.ok()) return In("unfence", block, lifted.error());
  return lifted;
}

Result<Fence> Fence::Lay(std::span<const BlockTable::Block> blocks) {
  Fence fence;
  for (const BlockTable::Block& block : blocks) {
    auto part = LayOne(block);
    if (part.ok()) {
      fence.parts_.push_back(*part);
      continue;
    }
    Error error = part.error();
    auto undone = fence.Lift(blocks);
    if (!undone.ok()) error.message += "; undoing that: " + undone.error().message;
    return error;
  }
  return fence;
}

Result<void> Fence::Lift(std::span<const BlockTable::Block> blocks) {
  Forget(blocks);
  Result<void> result;
  std::vector<Part> failed;
  for (Part& part : parts_) {
    auto lifted = LiftOne(*Find(blocks, part.block_id), part);
    if (lifted.ok()) continue;
    failed.push_back(part);
    if (result.ok()) result = lifted;
  }
  parts_ = std::move(failed);
  return result;
}

void Fence::Forget(std::span<const BlockTable::Block> blocks) {
  std::erase_if(parts_, [blocks](const Part& part) {
    if (Find(blocks, part.block_id) != nullptr) return false;
    if (part.moved.has_value()) DropMoved(*part.moved, part.size_bytes);
    return true;
  });
}

bool Fence::Has(uint64_t block_id) const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [block_id](const Part& part) { return part.block_id == block_id; });
}

}  // namespace postcopy
