#include "platform/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "platform/durable_file.h"

namespace postcopy {
namespace {

constexpr size_t kMaxPidBytes = 20;

}  // namespace

Result<FolderLock> FolderLock::Take(const std::string& folder) {
  if (auto made = MakeDirectory(folder); !made.ok()) return made.error();
  const std::string path = PathIn(folder);
  // For reading alone: a file system can be made read-only under it.
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!file.valid()) return ErrnoError(errno, "open " + path);
  int taken;
  do {
    taken = flock(file.get(), LOCK_EX | LOCK_NB);
  } while (taken != 0 && errno == EINTR);
  if (taken != 0 && errno == EWOULDBLOCK) {
    const auto pid = ReadWholeFile(path, kMaxPidBytes);
    const std::string known = pid.ok() && !pid->empty() ? *pid : "unknown";
    return Error{ErrorCode::kUnavailable,
                 "another uffd-server (pid " + known + ") uses " + folder};
  }
  if (taken != 0) return ErrnoError(errno, "lock " + path);
  const std::string pid = std::to_string(getpid());
  const UniqueFd writable(open(path.c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC | O_NOFOLLOW));
  if (!writable.valid() ||
      pwrite(writable.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
    return ErrnoError(errno, "write " + path);
  }
  return FolderLock(std::move(file));
}

}  // namespace postcopy
