// A second descriptor of the same open file.
#pragma once

#include <fcntl.h>

#include <cerrno>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

// Close-on-exec. kIo with EMFILE's text: out of descriptors. REQUIRES: fd.valid().
inline Result<UniqueFd> DuplicateFd(const UniqueFd& fd) {
  UniqueFd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return ErrnoError(errno, "duplicate descriptor");
  return copy;
}

}  // namespace postcopy
