// QEMU's run states, as a relocation sees them: one table of what is done about each.
//
// Pure. Not responsible for asking (qemu_driver.h) nor for a migration's own status (qemu_inspect.h).
#pragma once

#include <span>
#include <string_view>

#include "absl/status/status.h"

namespace postcopy {

enum class RunStateUse {
  kMoved,      // a machine in this state is relocated, and stays in it at the destination
  kComesBack,  // a relocation leaves it behind: `cont` starts the machine again
  kPasses,     // a step of QEMU's own that ends by itself: wait for the next
  kIncoming,   // no machine yet: never told to run
  kItsOwn,     // the machine, its disk or its operator brought it there: not moved and not started
};

struct RunStateEntry {
  std::string_view name;  // as query-status has it
  RunStateUse use;
  std::string_view why;   // what is the matter, and what would help; empty where it is moved
};

// Every run state of QEMU 7.2 to 10.
std::span<const RunStateEntry> RunStates();

// kFailedPrecondition: a machine in this state is not relocated; names the state and what would help.
// A state that is not in the table is refused, too.
absl::Status CheckRunStateMovable(std::string_view name);

// It stands still for a reason that is not the relocation's: `cont` would be wrong, or refused.
bool StoppedByItself(std::string_view name);

}  // namespace postcopy
