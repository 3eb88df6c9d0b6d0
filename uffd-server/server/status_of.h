// libpostcopy's Error as the daemon's absl::Status: the same text, the code that fits.
#pragma once

#include "absl/status/status.h"
#include "core/result.h"

namespace postcopy {

inline absl::Status StatusOf(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalidArgument: return absl::InvalidArgumentError(error.message);
    case ErrorCode::kNotFound: return absl::NotFoundError(error.message);
    case ErrorCode::kMismatch: return absl::FailedPreconditionError(error.message);
    case ErrorCode::kUnavailable: return absl::UnavailableError(error.message);
    case ErrorCode::kTimeout: return absl::DeadlineExceededError(error.message);
    case ErrorCode::kPermission: return absl::PermissionDeniedError(error.message);
    case ErrorCode::kProtocol: return absl::DataLossError(error.message);
    case ErrorCode::kIo: return absl::InternalError(error.message);
    case ErrorCode::kUnsupported: return absl::UnimplementedError(error.message);
  }
  return absl::UnknownError(error.message);
}

}  // namespace postcopy
