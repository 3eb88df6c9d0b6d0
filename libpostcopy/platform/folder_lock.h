// A folder that one uffd-server at a time uses.
//
// Needs a file system with flock(2). Not responsible for: programs that do not ask for the lock.
#pragma once

#include <string>

#include "core/result.h"
#include "platform/unique_fd.h"

namespace postcopy {

class FolderLock {
 public:
  // Makes the folder if need be and locks it, until this object or the process ends; does not wait.
  // kUnavailable: another daemon has it; the message tells its process.
  static Result<FolderLock> Take(const std::string& folder);

  // The folder's lock file: the number of its user's process, in decimal. It stays.
  static std::string PathIn(const std::string& folder) { return folder + "/.lock"; }

 private:
  explicit FolderLock(UniqueFd file) : file_(std::move(file)) {}

  UniqueFd file_;
};

}  // namespace postcopy
