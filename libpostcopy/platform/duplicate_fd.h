// A second descriptor of the same open file.
#pragma once

#include <fcntl.h>

#include <cerrno>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

// Close-on-exec, and never one of stdin, stdout and stderr. kIo with EMFILE's text: out of
// descriptors.
inline Result<UniqueFd> DuplicateFd(int fd) {
  UniqueFd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy.valid()) return ErrnoError(errno, "duplicate descriptor");
  return copy;
}
inline Result<UniqueFd> DuplicateFd(const UniqueFd& fd) { return DuplicateFd(fd.get()); }

}  // namespace postcopy
