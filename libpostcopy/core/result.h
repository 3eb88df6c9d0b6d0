// The result type of libpostcopy: a value, or an Error that a person can act on.
//
// Used for set-up and control in everything that a VMM loads (there is no abseil there). The page
// path does not use it: a page has an outcome enum, without text and without allocation.
#pragma once

#include <cassert>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <variant>

namespace postcopy {

enum class ErrorCode {
  kInvalidArgument,  // the caller's words are off
  kNotFound,         // the named thing does not exist
  kMismatch,         // both sides exist and do not fit each other
  kUnavailable,      // the peer is gone or unreachable; trying again may help
  kTimeout,          // no answer within the time stated
  kPermission,       // the kernel or the peer refused it to this user
  kProtocol,         // the peer sent what the protocol does not allow
  kIo,               // a system call failed for another reason
  kUnsupported,      // this kernel or this peer cannot do it
};

// Text reads "operation object: cause", e.g. "connect tcp://10.0.0.7:7701: connection refused".
struct Error {
  ErrorCode code = ErrorCode::kIo;
  std::string message;
};

// An Error for the errno value `cause`, with the code that fits it.
inline Error ErrnoError(int cause, std::string operation) {
  ErrorCode code = ErrorCode::kIo;
  switch (cause) {
    case ENOENT: code = ErrorCode::kNotFound; break;
    case EPERM:
    case EACCES: code = ErrorCode::kPermission; break;
    case EINVAL: code = ErrorCode::kInvalidArgument; break;
    case ENOSYS:
    case EOPNOTSUPP: code = ErrorCode::kUnsupported; break;
    case ETIMEDOUT: code = ErrorCode::kTimeout; break;
    case ECONNREFUSED:
    case ECONNRESET:
    case EPIPE:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case ESRCH: code = ErrorCode::kUnavailable; break;
    default: break;
  }
  return {code, std::move(operation) + ": " + std::strerror(cause)};
}

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT: implicit

  bool ok() const { return state_.index() == 0; }
  // REQUIRES: ok().
  T& value() & { assert(ok()); return std::get<0>(state_); }
  const T& value() const& { assert(ok()); return std::get<0>(state_); }
  T&& value() && { assert(ok()); return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  // REQUIRES: !ok().
  const Error& error() const { assert(!ok()); return std::get<1>(state_); }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT: implicit

  bool ok() const { return !error_.has_value(); }
  // REQUIRES: !ok().
  const Error& error() const { assert(!ok()); return *error_; }

 private:
  std::optional<Error> error_;
};

}  // namespace postcopy
