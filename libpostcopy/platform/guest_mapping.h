// What a VMM does to its own mapping of guest RAM before and after userfaultfd has it: empty it,
// keep huge pages off, and see what is present; and how it keeps itself out of it, page by page or by
// moving the pages elsewhere.
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

// A shared mapping of a file on tmpfs, whole 4 KiB pages.
struct SharedMapping {
  uint64_t address = 0;
  uint64_t size_bytes = 0;
  int file = -1;
  uint64_t file_offset = 0;
};

// ForbidAccess() by another way, whose time does not grow with the pages that are present: the page
// tables go to another address of this process as they are (mremap with MREMAP_DONTUNMAP; Linux 5.13
// for a shared mapping), and what stays is made inaccessible, empty. Returns the other address, the
// caller's to give to MoveBack() or DropMoved(); no code reads or writes there. Fails where the kernel does not do it: an
// older one, address space that is limited or used up, a range that is not one mapping. Everything is
// as it was then, unless the message says otherwise; a lock of the pages (mlock) may be lost.
Result<uint64_t> MoveAway(const SharedMapping& mapping);
// Undoes that, with what was set for the mapping (mlock, madvise) but for a userfaultfd's
// registration. The caller gives up `moved`, unless this returns kNotFound. Where the kernel refuses,
// MoveBack() maps the file again: the content is the same, each page is a minor fault, what was set is
// lost.
//   kNotFound  a part of the range is not mapped any more; nothing has changed
//   kIo        the range is not mapped any more, and is to be by MapLost()
Result<void> MoveBack(const SharedMapping& mapping, uint64_t moved);
// Maps the file again where nothing is mapped. Fails if something is, or without memory.
Result<void> MapLost(const SharedMapping& mapping);
// For a mapping that the process has unmapped meanwhile.
void DropMoved(uint64_t moved, uint64_t size_bytes);

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
