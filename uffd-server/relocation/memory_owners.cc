#include "relocation/memory_owners.h"

#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "platform/file_mappings.h"

namespace postcopy {
namespace {

bool Overlap(uint64_t first, uint64_t first_bytes, uint64_t second, uint64_t second_bytes) {
  return first < second + second_bytes && second < first + first_bytes;
}

std::string FileText(const VmBlock& block) {
  return absl::StrCat("RAM file ", block.path.empty() ? block.name : block.path);
}

}  // namespace

absl::Status CheckMemoryIsItsOwn(const VmRecord& vm, const std::vector<size_t>& blocks,
                                 const std::vector<FileBlock>& all) {
  for (const size_t position : blocks) {
    const VmBlock& block = vm.blocks[position];
    if (block.kind != wire::BlockKind::kSharedFile) continue;
    for (size_t i = 0; i < vm.blocks.size(); ++i) {
      const VmBlock& other = vm.blocks[i];
      if (i == position || other.kind != wire::BlockKind::kSharedFile ||
          other.file_id != block.file_id ||
          !Overlap(block.file_offset, block.size_bytes, other.file_offset, other.size_bytes)) {
        continue;
      }
      return absl::FailedPreconditionError(absl::StrCat(
          FileText(block), " holds two RAM blocks of this VM in the same bytes (at offsets ",
          block.file_offset, " and ", other.file_offset, "); give each block a mem-path of its own"));
    }
    for (const FileBlock& other : all) {
      if (other.vm == vm.name || other.file_id != block.file_id ||
          !Overlap(block.file_offset, block.size_bytes, other.file_offset, other.size_bytes)) {
        continue;
      }
      const std::string whose =
          other.vm.empty() ? absl::StrCat(" is also mapped by process ", other.pid)
                           : absl::StrCat(" is also the memory of VM ", other.vm, " (process ", other.pid, ")");
      return absl::FailedPreconditionError(absl::StrCat(
          FileText(block), whose, ", which would lose it; start the waiting VMM with a mem-path of its own"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckMemoryIsNotMapped(const VmRegistry& registry, const VmRecord& vm,
                                      const std::vector<size_t>& blocks) {
  std::vector<FileBlock> all = registry.FileBlocks();  // first: these have names
  std::vector<FileId> files;
  for (const size_t position : blocks) {
    const VmBlock& block = vm.blocks[position];
    if (block.kind == wire::BlockKind::kSharedFile) files.push_back(block.file_id);
  }
  for (FileMapping& mapping : FindMappings(files, vm.pid())) {
    all.push_back({"", mapping.pid, std::move(mapping.path), mapping.file_id, mapping.file_offset,
                   mapping.size_bytes});
  }
  return CheckMemoryIsItsOwn(vm, blocks, all);
}

}  // namespace postcopy
