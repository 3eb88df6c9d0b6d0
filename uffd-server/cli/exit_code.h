// What postcopyctl's exit codes mean, and which one an answer of the daemon leads to. Pure.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "control/postcopy.pb.h"

namespace postcopy {

enum class ExitCode : int {
  kOk = 0,
  kFailed = 1,       // an error that none of the others describes
  kUsage = 2,        // the command line is wrong
  kNoSuchVm = 3,     // no such VM or session at this daemon
  kMisfit = 4,       // the two sides do not fit, or it cannot be done in this state
  kUnreachable = 5,  // the daemon or its peer
  kRolledBack = 6,   // the switch failed; the VM goes on at the source
  kCancelled = 7,
  kUnfinished = 8,  // switched but not finished, or nobody knows
};

ExitCode ForStatus(const absl::Status& status);

// For the state in which a session has ended. Any other state: kUnfinished.
ExitCode ForEndState(v1::State state);

// The destination is, or was, the owner.
bool HasSwitched(v1::State state);

// One word for `outcome` in JSON: "ok", "failed", "usage", "no-such-vm", "misfit", "unreachable",
// "rolled-back", "cancelled", "unfinished".
std::string_view OutcomeWord(ExitCode code);

}  // namespace postcopy
