#include "cli/exit_code.h"

namespace postcopy {

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

std::string_view OutcomeWord(ExitCode code) {
  switch (code) {
    case ExitCode::kOk: return "ok";
    case ExitCode::kFailed: return "failed";
    case ExitCode::kUsage: return "usage";
    case ExitCode::kNoSuchVm: return "no-such-vm";
    case ExitCode::kMisfit: return "misfit";
    case ExitCode::kUnreachable: return "unreachable";
    case ExitCode::kRolledBack: return "rolled-back";
    case ExitCode::kCancelled: return "cancelled";
    case ExitCode::kUnfinished: return "unfinished";
  }
  return "failed";
}

}  // namespace postcopy
