#include "platform/userfault.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "platform/userfault_abi.h"

namespace postcopy {
namespace {

constexpr uint64_t kFeatures = UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_MISSING_SHMEM |
                               UFFD_FEATURE_MISSING_HUGETLBFS | UFFD_FEATURE_MINOR_SHMEM;

int RetryIoctl(int fd, unsigned long request, void* argument) {
  int result;
  do {
    result = ioctl(fd, request, argument);
  } while (result < 0 && errno == EINTR);
  return result;
}

// The kernel's answer to an install ioctl: `count` is signed, holds -errno or the bytes done before
// `error` stopped it (then the ioctl itself fails with EAGAIN).
InstallResult Interpret(int result, int error, int64_t count, uint64_t size_bytes) {
  InstallResult out;
  out.done_bytes = count > 0 ? static_cast<uint64_t>(count) : 0;
  if (result == 0) {
    out.outcome = InstallOutcome::kInstalled;
    out.done_bytes = size_bytes;
    return out;
  }
  out.error = error;
  switch (error) {
    case EEXIST: out.outcome = InstallOutcome::kAlreadyPresent; break;
    case EAGAIN: out.outcome = InstallOutcome::kRetry; break;
    case ENOENT: out.outcome = InstallOutcome::kRangeGone; break;
    case EFAULT: out.outcome = InstallOutcome::kNotFilled; break;
    case ESRCH: out.outcome = InstallOutcome::kProcessGone; break;
    default: out.outcome = InstallOutcome::kFailed; break;
  }
  return out;
}

}  // namespace

Result<UniqueFd> OpenUserfaultDevice() {
  UniqueFd device(open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
  if (!device.valid()) return ErrnoError(errno, "open /dev/userfaultfd");
  return device;
}

Result<UniqueFd> CreateUserfault(int device_fd) {
  UniqueFd userfault;
  if (device_fd >= 0) {
    userfault.Reset(ioctl(device_fd, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK));
    if (!userfault.valid()) return ErrnoError(errno, "create userfaultfd from /dev/userfaultfd");
  } else {
    userfault.Reset(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
    if (!userfault.valid()) {
      const int cause = errno;
      return ErrnoError(cause, cause == EPERM
                                   ? "create userfaultfd (needs access to /dev/userfaultfd, "
                                     "CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1)"
                                   : "create userfaultfd");
    }
  }
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = kFeatures;
  if (RetryIoctl(userfault.get(), UFFDIO_API, &api) != 0) {
    return ErrnoError(errno, "userfaultfd handshake for remove events and minor faults on shmem");
  }
  return userfault;
}

Result<void> RegisterFaults(int userfault, uint64_t start, uint64_t size_bytes, FaultMode mode) {
  uffdio_register reg{};
  reg.range = {start, size_bytes};
  reg.mode = UFFDIO_REGISTER_MODE_MISSING;
  if (mode == FaultMode::kMissingAndMinor) reg.mode |= UFFDIO_REGISTER_MODE_MINOR;
  if (RetryIoctl(userfault, UFFDIO_REGISTER, &reg) != 0) {
    return ErrnoError(errno, "register guest RAM with userfaultfd");
  }
  return {};
}

Result<void> UnregisterFaults(int userfault, uint64_t start, uint64_t size_bytes) {
  uffdio_range range{start, size_bytes};
  const int result = RetryIoctl(userfault, UFFDIO_UNREGISTER, &range);
  const int cause = errno;
  // The kernel (seen with 6.18) wakes the waiters before it takes each mapping's own lock: a fault that
  // is under way meanwhile begins to wait after that, and nothing would ever wake it.
  WakePages(userfault, start, size_bytes);
  if (result != 0) return ErrnoError(cause, "unregister guest RAM from userfaultfd");
  return {};
}

InstallResult CopyPages(int userfault, uint64_t start, const void* from, uint64_t size_bytes) {
  uffdio_copy copy{};
  copy.dst = start;
  copy.src = reinterpret_cast<uintptr_t>(from);
  copy.len = size_bytes;
  const int result = RetryIoctl(userfault, UFFDIO_COPY, &copy);
  InstallResult interpreted = Interpret(result, errno, copy.copy, size_bytes);
  // EFAULT: `from` cannot be read.
  if (interpreted.outcome == InstallOutcome::kNotFilled) interpreted.outcome = InstallOutcome::kFailed;
  return interpreted;
}

InstallResult ContinuePages(int userfault, uint64_t start, uint64_t size_bytes) {
  uffdio_continue cont{};
  cont.range = {start, size_bytes};
  const int result = RetryIoctl(userfault, UFFDIO_CONTINUE, &cont);
  return Interpret(result, errno, cont.mapped, size_bytes);
}

InstallResult ZeroPages(int userfault, uint64_t start, uint64_t size_bytes) {
  uffdio_zeropage zero{};
  zero.range = {start, size_bytes};
  const int result = RetryIoctl(userfault, UFFDIO_ZEROPAGE, &zero);
  return Interpret(result, errno, zero.zeropage, size_bytes);
}

InstallResult PoisonPages(int userfault, uint64_t start, uint64_t size_bytes) {
  uffdio_poison poison{};
  poison.range = {start, size_bytes};
  const int result = RetryIoctl(userfault, UFFDIO_POISON, &poison);
  InstallResult interpreted = Interpret(result, errno, poison.updated, size_bytes);
  // EFAULT: the file ends before it.
  if (interpreted.outcome == InstallOutcome::kNotFilled) {
    interpreted.outcome = InstallOutcome::kRangeGone;
  }
  return interpreted;
}

bool KernelCanPoison() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  UniqueFd userfault(static_cast<int>(syscall(SYS_userfaultfd, kFlags | UFFD_USER_MODE_ONLY)));
  if (!userfault.valid()) {
    const auto device = OpenUserfaultDevice();
    if (!device.ok()) return false;
    userfault.Reset(ioctl(device->get(), USERFAULTFD_IOC_NEW, kFlags));
    if (!userfault.valid()) return false;
  }
  uffdio_api api{};
  api.api = UFFD_API;  // without features: the answer has all that the kernel knows
  return RetryIoctl(userfault.get(), UFFDIO_API, &api) == 0 &&
         (api.features & UFFD_FEATURE_POISON) != 0;
}

void WakePages(int userfault, uint64_t start, uint64_t size_bytes) {
  uffdio_range range{start, size_bytes};
  RetryIoctl(userfault, UFFDIO_WAKE, &range);
}

Result<size_t> ReadFaultEvents(int userfault, std::span<FaultEvent> events) {
  constexpr size_t kMaxBatch = 64;
  std::array<uffd_msg, kMaxBatch> raw;
  const size_t wanted = events.size() < kMaxBatch ? events.size() : kMaxBatch;
  ssize_t got;
  do {
    got = read(userfault, raw.data(), wanted * sizeof(uffd_msg));
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno == EAGAIN) return size_t{0};
    return ErrnoError(errno, "read userfaultfd events");
  }
  const size_t count = static_cast<size_t>(got) / sizeof(uffd_msg);
  for (size_t i = 0; i < count; ++i) {
    const uffd_msg& message = raw[i];
    FaultEvent& event = events[i];
    event = {};
    switch (message.event) {
      case UFFD_EVENT_PAGEFAULT:
        event.kind = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0
                         ? FaultEvent::Kind::kMinor
                         : FaultEvent::Kind::kMissing;
        event.address = message.arg.pagefault.address;
        event.write = (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
        break;
      case UFFD_EVENT_REMOVE:
      case UFFD_EVENT_UNMAP:
        event.kind = message.event == UFFD_EVENT_REMOVE ? FaultEvent::Kind::kRemove
                                                        : FaultEvent::Kind::kUnmap;
        event.address = message.arg.remove.start;
        event.end_address = message.arg.remove.end;
        break;
      default: break;
    }
  }
  return count;
}

}  // namespace postcopy
