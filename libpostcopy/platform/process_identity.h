// Which process it was, in a form that can be written down and compared after a restart of the host:
// its number alone comes to mean another process.
#pragma once

#include <cstdint>
#include <string>

#include "core/result.h"
#include "platform/pidfd.h"

namespace postcopy {

struct ProcessIdentity {
  int pid = 0;                  // 0: no process is named
  uint64_t started_ticks = 0;   // since the boot, /proc/<pid>/stat; 0: not known
  std::string boot_id;          // of the kernel that it ran on; empty: not known

  friend bool operator==(const ProcessIdentity&, const ProcessIdentity&) = default;
};

// What the process that `process` holds is called. kUnavailable: it has ended.
Result<ProcessIdentity> Identify(const Pidfd& process);

// False also where this cannot be told now.
bool IsOfThisBoot(const ProcessIdentity& identity);

// True: that process has ended, for certain. False: it lives, or this cannot be told now.
bool HasEnded(const ProcessIdentity& identity);

}  // namespace postcopy
