// The border between the two error idioms: Error of libpostcopy, absl::Status of the daemon.
#pragma once

#include "absl/status/status.h"
#include "core/result.h"

namespace postcopy {

inline absl::Status ToStatus(const Error& error) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  switch (error.code) {
    case ErrorCode::kInvalidArgument: code = absl::StatusCode::kInvalidArgument; break;
    case ErrorCode::kNotFound: code = absl::StatusCode::kNotFound; break;
    case ErrorCode::kMismatch:
    case ErrorCode::kUnsupported: code = absl::StatusCode::kFailedPrecondition; break;
    case ErrorCode::kUnavailable: code = absl::StatusCode::kUnavailable; break;
    case ErrorCode::kTimeout: code = absl::StatusCode::kDeadlineExceeded; break;
    case ErrorCode::kPermission: code = absl::StatusCode::kPermissionDenied; break;
    case ErrorCode::kProtocol:
    case ErrorCode::kIo: code = absl::StatusCode::kInternal; break;
  }
  return absl::Status(code, error.message);
}

}  // namespace postcopy
