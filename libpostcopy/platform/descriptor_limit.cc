#include "platform/descriptor_limit.h"

#include <sys/resource.h>

#include <cerrno>

namespace postcopy {

Result<uint64_t> RaiseDescriptorLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoError(errno, "read the descriptor limit");
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return ErrnoError(errno, "raise the descriptor limit");
  return uint64_t{limit.rlim_cur};
}

}  // namespace postcopy
