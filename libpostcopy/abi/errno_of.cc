#include "abi/errno_of.h"

#include <cerrno>

namespace postcopy {

int ErrnoOf(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return -EINVAL;
    case ErrorCode::kNotFound: return -ENOENT;
    case ErrorCode::kMismatch: return -EBUSY;
    case ErrorCode::kUnavailable: return -ECONNREFUSED;
    case ErrorCode::kTimeout: return -ETIMEDOUT;
    case ErrorCode::kPermission: return -EPERM;
    case ErrorCode::kProtocol: return -EPROTO;
    case ErrorCode::kIo: return -EAGAIN;
    case ErrorCode::kUnsupported: return -EOPNOTSUPP;
  }
  return -EIO;
}

}  // namespace postcopy
