#include "attach/fencing.h"

#include <string>

#include "platform/guest_mapping.h"

namespace postcopy {
namespace {

Error In(const char* operation, const BlockTable::Block& block, const Error& error) {
  const wire::RegisterBlock& what = block.block;
  const std::string& label = what.name.empty() ? what.path : what.name;
  return {error.code, std::string(operation) + " RAM block " +
                          (label.empty() ? std::string("(anonymous)") : label) + " of " +
                          std::to_string(what.size_bytes) + " bytes: " + error.message};
}

}  // namespace

Result<void> FenceBlocks(std::span<const BlockTable::Block> blocks) {
  for (size_t i = 0; i < blocks.size(); ++i) {
    const wire::RegisterBlock& what = blocks[i].block;
    auto fenced = ForbidAccess(what.address, what.size_bytes);
    if (fenced.ok()) continue;
    Error error = In("fence", blocks[i], fenced.error());
    // The one that failed, too: a part of it may have been changed.
    auto undone = UnfenceBlocks(blocks.first(i + 1));
    if (!undone.ok()) error.message += "; undoing that: " + undone.error().message;
    return error;
  }
  return {};
}

Result<void> UnfenceBlocks(std::span<const BlockTable::Block> blocks) {
  Result<void> result;
  for (const BlockTable::Block& block : blocks) {
    auto allowed = AllowAccess(block.block.address, block.block.size_bytes);
    if (!allowed.ok() && result.ok()) result = In("unfence", block, allowed.error());
  }
  return result;
}

}  // namespace postcopy
