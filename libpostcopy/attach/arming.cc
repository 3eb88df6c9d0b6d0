#include "attach/arming.h"

#include <optional>

#include "platform/ram_file.h"
#include "platform/userfault.h"

namespace postcopy {
namespace {

std::string Describe(const BlockTable::Block& block) {
  const wire::RegisterBlock& what = block.block;
  const std::string& label = what.name.empty() ? what.path : what.name;
  return "arm RAM block " + (label.empty() ? std::string("(anonymous)") : label) + " of " +
         std::to_string(what.size_bytes) + " bytes: ";
}

Error In(const BlockTable::Block& block, const Error& error) {
  return {error.code, Describe(block) + error.message};
}

// The order matters. DONTNEED comes before REGISTER, since after it the call would wait for a
// reader of its remove event. A shared file is punched after REGISTER: that also unmaps what was
// touched between the two, and raises no event. NOHUGEPAGE comes after QEMU's own HUGEPAGE, which
// it set when it made the block. Huge pages that were populated have lost their reservation by being
// punched: it is taken anew while a failure harms nobody.
Result<void> ArmBlock(int userfault, const BlockTable::Block& block) {
  const wire::RegisterBlock& what = block.block;
  const bool shared = what.kind == wire::BlockKind::kSharedFile;
  const auto page_bytes =
      shared ? QueryRamFilePageBytes(block.ram_file) : Result<uint64_t>(kPageBytes);
  if (!page_bytes.ok()) return page_bytes.error();
  const bool huge = *page_bytes != kPageBytes;
  if (!huge) {
    if (auto done = DropGuestPages(what.address, what.size_bytes); !done.ok()) return done;
  }
  if (auto done = RegisterFaults(userfault, what.address, what.size_bytes,
                                 shared && !huge ? FaultMode::kMissingAndMinor
                                                 : FaultMode::kMissing);
      !done.ok()) {
    return done;
  }
  if (shared) {
    if (auto done = PunchRamFile(block.ram_file, what.file_offset, what.size_bytes); !done.ok()) {
      return done;
    }
  }
  if (huge) return ReserveHugePages(block.ram_file, what.file_offset, what.size_bytes);
  return ForbidHugePages(what.address, what.size_bytes);
}

Result<void> CheckEmpty(const BlockTable::Block& block, const PageTableView& page_table) {
  const wire::RegisterBlock& what = block.block;
  auto present = page_table.FindPresent(what.address, what.size_bytes);
  if (!present.ok()) return present.error();
  if (!present->has_value()) return {};
  return Error{ErrorCode::kMismatch,
               "the page at offset " + std::to_string(**present - what.address) +
                   " is still present and would never fault"};
}

}  // namespace

Result<UniqueFd> ArmBlocks(int device_fd, std::span<const BlockTable::Block> blocks,
                           const PageTableView& page_table) {
  // A failure returns and so closes the only descriptor: that ends every registration.
  auto userfault = CreateUserfault(device_fd);
  if (!userfault.ok()) return userfault.error();
  for (const BlockTable::Block& block : blocks) {
    if (auto armed = ArmBlock(userfault->get(), block); !armed.ok()) {
      return In(block, armed.error());
    }
  }
  for (const BlockTable::Block& block : blocks) {
    if (auto empty = CheckEmpty(block, page_table); !empty.ok()) return In(block, empty.error());
  }
  return std::move(*userfault);
}

void AllowHugePagesAgain(std::span<const BlockTable::Block> blocks) {
  for (const BlockTable::Block& block : blocks) {
    (void)AllowHugePages(block.block.address, block.block.size_bytes);
  }
}

}  // namespace postcopy
