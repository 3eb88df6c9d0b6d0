#include "cli/exit_code.h"

#include <array>

#include "absl/strings/str_cat.h"

namespace postcopy {
namespace {

constexpr std::array kOutcomes{
    Outcome{"ok", ExitCode::kOk, "done"},
    Outcome{"prepared", ExitCode::kOk, "both sides are ready, nothing has stopped"},
    Outcome{"switched", ExitCode::kOk, "the VM runs at the destination, its memory is arriving"},
    Outcome{"committed", ExitCode::kOk, "the VM and all of its memory are at the destination"},
    Outcome{"failed", ExitCode::kFailed, "failed in a way that none of the others describes"},
    Outcome{"usage", ExitCode::kUsage, "the command line is wrong"},
    Outcome{"no-such-vm", ExitCode::kNoSuchVm, "no such VM, or no relocation of it, at this daemon"},
    Outcome{"misfit", ExitCode::kMisfit,
            "the two sides do not fit, or it cannot be done in this state"},
    Outcome{"unreachable", ExitCode::kUnreachable, "the daemon or the other host's is unreachable"},
    Outcome{"rolled-back", ExitCode::kRolledBack, "the switch failed, the VM runs at the source"},
    Outcome{"cancelled", ExitCode::kCancelled, "cancelled, the VM runs at the source"},
    Outcome{"unfinished", ExitCode::kUnfinished,
            "switched but not finished, or the outcome is not known"},
};

}  // namespace

std::span<const Outcome> Outcomes() { return kOutcomes; }

std::string_view OutcomeWord(ExitCode code) {
  for (const Outcome& outcome : kOutcomes) {
    if (outcome.code == code) return outcome.word;
  }
  return "failed";
}

std::string ExitCodeHelp() {
  std::string help;
  for (size_t i = 0; i < kOutcomes.size();) {
    const Outcome& first = kOutcomes[i];
    absl::StrAppend(&help, "  ", static_cast<int>(first.code), "  ", std::string(first.word));
    for (++i; i < kOutcomes.size() && kOutcomes[i].code == first.code; ++i) {
      absl::StrAppend(&help, ", ", std::string(kOutcomes[i].word));
    }
    absl::StrAppend(&help, ": ", std::string(first.meaning), "\n");
  }
  return help;
}

ExitCode ForStatus(const absl::Status& status) {
  switch (status.code()) {  // not our enum
    case absl::StatusCode::kOk: return ExitCode::kOk;
    case absl::StatusCode::kInvalidArgument: return ExitCode::kUsage;
    case absl::StatusCode::kNotFound: return ExitCode::kNoSuchVm;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists: return ExitCode::kMisfit;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded: return ExitCode::kUnreachable;
    case absl::StatusCode::kAborted: return ExitCode::kRolledBack;
    case absl::StatusCode::kCancelled: return ExitCode::kCancelled;
    case absl::StatusCode::kInternal: return ExitCode::kUnfinished;  // "the outcome is not known"
    default: return ExitCode::kFailed;
  }
}

ExitCode ForEndState(v1::State state) {
  switch (state) {  // open: a newer daemon may know more states
    case v1::STATE_COMMITTED: return ExitCode::kOk;
    case v1::STATE_ROLLED_BACK: return ExitCode::kRolledBack;
    case v1::STATE_CANCELLED: return ExitCode::kCancelled;
    default: return ExitCode::kUnfinished;
  }
}

bool HasSwitched(v1::State state) {
  return state == v1::STATE_HANDED_OVER || state == v1::STATE_RUNNING ||
         state == v1::STATE_COMMITTED;
}

}  // namespace postcopy
