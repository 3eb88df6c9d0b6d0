// absl::Status over gRPC and back: the codes are the same one to one, the text is carried along.
//
// An answer of a daemon is marked as such, so that what the daemon says ("offer to b:7700:
// connection refused") is never taken for what happened to the call itself.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace grpc {
class ClientContext;
class ServerContext;
class Status;
}  // namespace grpc

namespace postcopy {

// Longer messages are cut: gRPC carries them in a header of limited size.
inline constexpr size_t kMaxErrorTextBytes = 2000;

// What a service returns; marks the answer in `context`.
grpc::Status Answer(grpc::ServerContext* context, const absl::Status& status);

// The cause of a call's failure that no daemon has answered, in an operator's words: of gRPC's `code`
// and `text`.
std::string CauseOfFailedCall(int code, std::string text);

// What a call came to. An error that the other daemon answered keeps its text; one of the call
// itself (no connection, no answer in time) reads "<callee>: <cause>" and never has a code by which
// a daemon says what became of a VM: kNotFound, kAlreadyExists, kFailedPrecondition, kAborted and
// kDataLoss are a daemon's word.
// REQUIRES: the call has finished.
absl::Status Outcome(const grpc::ClientContext& context, const grpc::Status& status,
                     const std::string& callee);

}  // namespace postcopy
