#include "platform/durable_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "platform/unique_fd.h"

namespace postcopy {
namespace {

constexpr const char* kFreshSuffix = ".new";

// "Cannot be read now" is kUnavailable.
Error CannotRead(int cause, const std::string& operation) {
  Error error = ErrnoError(cause, operation);
  if (cause == EMFILE || cause == ENFILE || cause == ENOMEM) error.code = ErrorCode::kUnavailable;
  return error;
}

Result<void> WriteAndSync(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t written = write(fd, content.data(), content.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoError(errno, "write " + path);
    content.remove_prefix(static_cast<size_t>(written));
  }
  if (fsync(fd) != 0) return ErrnoError(errno, "sync " + path);
  return {};
}

// A file of its own, opened with `flag` besides; gone again on failure.
Result<void> WriteFresh(const std::string& path, int flag, std::string_view content) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC | flag, 0600));
  if (!file.valid()) return ErrnoError(errno, "create " + path);
  auto written = WriteAndSync(file.get(), content, path);
  if (!written.ok()) unlink(path.c_str());
  return written;
}

Result<void> SyncFolderOf(const std::string& path) {
  const std::string folder = std::filesystem::path(path).parent_path().string();
  UniqueFd opened(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!opened.valid() || fsync(opened.get()) != 0) return ErrnoError(errno, "sync " + folder);
  return {};
}

}  // namespace

Result<void> MakeDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) return ErrnoError(error.value(), "make directory " + path);
  return {};
}

Result<void> WriteDurably(const std::string& path, std::string_view content) {
  const std::string fresh = path + kFreshSuffix;
  auto written = WriteFresh(fresh, O_TRUNC, content);
  if (!written.ok()) return written;
  if (rename(fresh.c_str(), path.c_str()) != 0) return ErrnoError(errno, "rename " + fresh);
  return SyncFolderOf(path);
}

Result<bool> CreateDurably(const std::string& path, std::string_view content) {
  struct stat known {};
  if (lstat(path.c_str(), &known) == 0) return false;
  const std::string fresh = path + kFreshSuffix;
  // Two threads may create it at once.
  const auto written = WriteFresh(fresh, O_EXCL, content);
  if (!written.ok()) return written.error();
  const int failure = link(fresh.c_str(), path.c_str()) == 0 ? 0 : errno;
  unlink(fresh.c_str());
  if (failure == EEXIST) return false;
  if (failure != 0) return ErrnoError(failure, "create " + path);
  if (auto synced = SyncFolderOf(path); !synced.ok()) {
    unlink(path.c_str());
    return synced.error();
  }
  return true;
}

Result<void> OverwriteDurably(const std::string& path, std::string_view content,
                              std::span<const uint64_t> offsets) {
  UniqueFd file(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file.valid()) return ErrnoError(errno, "open " + path);
  for (const uint64_t offset : offsets) {
    ssize_t written;
    do {
      written = pwrite(file.get(), content.data(), content.size(), static_cast<off_t>(offset));
    } while (written < 0 && errno == EINTR);
    if (written < 0) return ErrnoError(errno, "write " + path);
    if (static_cast<size_t>(written) != content.size()) return ErrnoError(EIO, "write " + path);
  }
  if (fdatasync(file.get()) != 0) return ErrnoError(errno, "sync " + path);
  return {};
}

Result<std::string> ReadWholeFile(const std::string& path, size_t limit_bytes) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.valid()) return CannotRead(errno, "open " + path);
  std::string content(limit_bytes, '\0');
  size_t have = 0;
  while (have < limit_bytes) {
    const ssize_t got = read(file.get(), content.data() + have, limit_bytes - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return CannotRead(errno, "read " + path);
    if (got == 0) break;
    have += static_cast<size_t>(got);
  }
  content.resize(have);
  return content;
}

Result<std::vector<std::string>> ListFolder(const std::string& path) {
  const auto close_folder = [](DIR* folder) { closedir(folder); };
  std::unique_ptr<DIR, decltype(close_folder)> folder(opendir(path.c_str()), close_folder);
  if (folder == nullptr) return CannotRead(errno, "read folder " + path);
  std::vector<std::string> names;
  for (;;) {
    errno = 0;
    const dirent* const entry = readdir(folder.get());
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  if (errno != 0) return CannotRead(errno, "read folder " + path);
  return names;
}

}  // namespace postcopy
