#include "relocation/memory_match.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

constexpr size_t kNone = static_cast<size_t>(-1);

class Matcher {
 public:
  Matcher(const VmRecord& record, SessionRole role) : record_(record), role_(role) {
    taken_.resize(record.blocks.size());
  }

  absl::StatusOr<size_t> Match(const VmmRamBackend& backend) {
    const bool file = backend.shared && !backend.mem_path.empty();
    if (role_ == SessionRole::kSource && !backend.shared) {
      return absl::FailedPreconditionError(absl::StrCat(
          "RAM block ", backend.id, " is not in a shared file (QEMU needs -object "
          "memory-backend-file,id=", backend.id, ",mem-path=...,share=on)"));
    }
    size_t found = file ? FindPath(backend) : kNone;
    if (found == kNone) {
      const auto by_size = FindSize(
          backend, backend.shared ? wire::BlockKind::kSharedFile : wire::BlockKind::kAnonymous);
      if (!by_size.ok()) return by_size;
      found = *by_size;
    }
    taken_[found] = true;
    return found;
  }

 private:
  size_t FindPath(const VmmRamBackend& backend) const {
    for (size_t i = 0; i < record_.blocks.size(); ++i) {
      const VmBlock& block = record_.blocks[i];
      if (!taken_[i] && block.path == backend.mem_path && block.size_bytes == backend.size_bytes) {
        return i;
      }
    }
    return kNone;
  }

  absl::StatusOr<size_t> FindSize(const VmmRamBackend& backend, wire::BlockKind kind) const {
    size_t found = kNone;
    for (size_t i = 0; i < record_.blocks.size(); ++i) {
      const VmBlock& block = record_.blocks[i];
      if (taken_[i] || block.kind != kind || block.size_bytes != backend.size_bytes) continue;
      if (found != kNone) {
        return absl::FailedPreconditionError(absl::StrCat(
            "RAM block ", backend.id, ": two mappings of ", backend.size_bytes,
            " bytes fit it and nothing tells them apart"));
      }
      found = i;
    }
    if (found == kNone) {
      return absl::FailedPreconditionError(absl::StrCat(
          "RAM block ", backend.id, " (", backend.size_bytes,
          " bytes): the hook saw no mapping of it"));
    }
    return found;
  }

  const VmRecord& record_;
  const SessionRole role_;
  std::vector<bool> taken_;
};

}  // namespace

absl::StatusOr<MatchedMemory> MatchMemory(const VmRecord& record, const VmmDescription& vmm,
                                          SessionRole role) {
  if (vmm.ram.empty()) {
    return absl::FailedPreconditionError(
        "guest RAM is no -object of its own (QEMU needs -object memory-backend-file,...,share=on "
        "and -machine ...,memory-backend=)");
  }
  MatchedMemory matched;
  Matcher matcher(record, role);
  for (const VmmRamBackend& backend : vmm.ram) {
    const auto block = matcher.Match(backend);
    if (!block.ok()) return block.status();
    matched.layout.regions.push_back({backend.id, backend.size_bytes});
    matched.blocks.push_back(*block);
  }
  const auto valid = Validate(matched.layout);
  if (!valid.ok()) return absl::FailedPreconditionError(valid.error().message);
  return matched;
}

}  // namespace postcopy
