// Thin wrappers of userfaultfd(2) and its ioctls: each says what happened and decides nothing.
//
// EINTR is retried here and nowhere else. Everything works on the descriptor of another process's
// address space as well as on one's own. Needs Linux 5.13 (minor faults on shmem); /dev/userfaultfd
// is there from 6.1 on. All functions are thread-safe. Addresses are those of the process that
// created the userfaultfd, page-aligned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

// Opens /dev/userfaultfd. Whoever holds the descriptor may create userfaultfds that see kernel-mode
// faults, without any privilege of its own. kNotFound: kernel older than 6.1 or no such node.
Result<UniqueFd> OpenUserfaultDevice();

// A userfaultfd of the calling process, non-blocking and close-on-exec, API handshake done with
// EVENT_REMOVE, MISSING_SHMEM, MISSING_HUGETLBFS and MINOR_SHMEM. From `device_fd` (OpenUserfaultDevice(), perhaps of
// another process) or, when that is -1, by the system call, which needs CAP_SYS_PTRACE or the
// sysctl vm.unprivileged_userfaultfd. kPermission names what is missing.
Result<UniqueFd> CreateUserfault(int device_fd);

enum class FaultMode {
  kMissing,          // anonymous memory and hugetlbfs
  kMissingAndMinor,  // shared file memory, filled through the page cache
};
// Faults in [start, start + size) are reported from now on. Pages already mapped do not fault.
Result<void> RegisterFaults(int userfault, uint64_t start, uint64_t size_bytes, FaultMode mode);
// Wakes all waiters in the range; missing pages read as zero from now on, without a report.
// kInvalidArgument: nothing is mapped there any more, or something that cannot be registered.
Result<void> UnregisterFaults(int userfault, uint64_t start, uint64_t size_bytes);

enum class InstallOutcome {
  kInstalled,       // `done_bytes` is the whole range
  kAlreadyPresent,  // the page at start + done_bytes was there before; its waiters were not woken
  kRetry,           // an event is unread or the mappings are changing; try the rest again
  kRangeGone,       // not all of the range lies in one mapping that is still registered: of several
                    // pages each may be there all the same
  kNotFilled,       // Continue only: the page cache has no page at start + done_bytes
  kProcessGone,     // the process has exited
  kFailed,          // anything else; `error` holds errno
};
struct InstallResult {
  InstallOutcome outcome = InstallOutcome::kFailed;
  uint64_t done_bytes = 0;  // installed from the start of the range, whatever the outcome
  int error = 0;
};
// Copies `size_bytes` from `from` (this process) to missing pages at `start`; wakes waiters.
InstallResult CopyPages(int userfault, uint64_t start, const void* from, uint64_t size_bytes);
// Maps pages that the page cache already holds (shared file memory); wakes waiters.
InstallResult ContinuePages(int userfault, uint64_t start, uint64_t size_bytes);
// Makes missing pages read as zero; wakes waiters.
InstallResult ZeroPages(int userfault, uint64_t start, uint64_t size_bytes);
// Makes missing pages fail: whoever touches one gets SIGBUS, also after the range was unregistered;
// wakes waiters. What a RAM file holds does not change and cannot be reached through the mapping
// any more. Ends where the page is given up (MADV_DONTNEED), and where CopyPages() brings it. Huge
// pages whole only. REQUIRES: KernelCanPoison(); otherwise the answer is kFailed (EINVAL).
InstallResult PoisonPages(int userfault, uint64_t start, uint64_t size_bytes);
// Whether this kernel has UFFDIO_POISON (Linux 6.6). Asks it each time; false if it can't be asked.
bool KernelCanPoison();
// Wakes whoever waits in the range, to look again.
void WakePages(int userfault, uint64_t start, uint64_t size_bytes);

struct FaultEvent {
  enum class Kind { kMissing, kMinor, kRemove, kUnmap, kOther };
  Kind kind = Kind::kOther;
  uint64_t address = 0;      // of the faulting byte; start of the range for kRemove and kUnmap
  uint64_t end_address = 0;  // kRemove and kUnmap
  bool write = false;
};
// Reads what is pending, at most events.size(), without waiting. Returns how many; 0: nothing
// pending. kUnavailable: the process is gone.
Result<size_t> ReadFaultEvents(int userfault, std::span<FaultEvent> events);

}  // namespace postcopy
