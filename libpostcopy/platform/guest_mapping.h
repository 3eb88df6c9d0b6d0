// What a VMM does to its own mapping of guest RAM before and after userfaultfd has it: empty it,
// keep huge pages off, and see what is present; and how it keeps itself out of it.
//
// Not responsible for: the RAM file behind a shared mapping (ram_file.h) and for userfaultfd
// (userfault.h). Works on the calling process only; addresses and sizes are page-aligned.
// Thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

// Unmaps every page of the range; private anonymous memory is lost, a shared file keeps its content.
// On a range that a userfaultfd has with EVENT_REMOVE it waits until the event is read.
Result<void> DropGuestPages(uint64_t address, uint64_t size_bytes);

Result<void> ForbidHugePages(uint64_t address, uint64_t size_bytes);
Result<void> AllowHugePages(uint64_t address, uint64_t size_bytes);

// From then on whatever this process does with the range raises SIGSEGV; system calls that are given
// it fail with EFAULT. What it holds stays. kNotFound: a part of the range is not mapped; some of it
// may be inaccessible then. A range on hugetlbfs has to consist of whole huge pages.
Result<void> ForbidAccess(uint64_t address, uint64_t size_bytes);
// The range may be read and written again. Fails as ForbidAccess() does.
Result<void> AllowAccess(uint64_t address, uint64_t size_bytes);

// Where the calling process's pages are, from /proc/self/pagemap. Open early and keep: after a
// process has changed its user it may not open its own any more.
class PageTableView {
 public:
  static Result<PageTableView> Open();

  // The address of the first page of the range that is mapped or swapped out, if any. Reads in
  // chunks of bounded size.
  Result<std::optional<uint64_t>> FindPresent(uint64_t address, uint64_t size_bytes) const;

 private:
  explicit PageTableView(UniqueFd file) : file_(std::move(file)) {}
  UniqueFd file_;
};

}  // namespace postcopy
