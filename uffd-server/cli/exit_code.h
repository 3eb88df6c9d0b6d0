// What became of a command: postcopyctl's exit code, and the word for it in JSON. One table; --help
// and docs/json.md say the same. Pure.
#pragma once

#include <span>
#include <string>
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
  kRolledBack = 6,   // the switch failed; the VM runs at the source
  kCancelled = 7,
  kUnfinished = 8,  // switched but not finished, or the outcome is not known
};

// What `outcome` in JSON can be.
struct Outcome {
  std::string_view word;
  ExitCode code;
  std::string_view meaning;  // a phrase
};
// In the order of their codes.
std::span<const Outcome> Outcomes();

// The word of a command that ended with `code`: for kOk "ok", whose other words a command says itself.
std::string_view OutcomeWord(ExitCode code);

// "  0  ok, prepared, switched, committed: done" and so on, a line for each exit code.
std::string ExitCodeHelp();

ExitCode ForStatus(const absl::Status& status);

// For the state in which a session has ended. Any other state: kUnfinished.
ExitCode ForEndState(v1::State state);

// The destination is, or was, the owner.
bool HasSwitched(v1::State state);

}  // namespace postcopy
