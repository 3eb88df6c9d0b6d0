// Where gRPC's own log goes: to the daemon's log at level debug, instead of to stderr.
#pragma once

#include <string>

namespace postcopy {

// From now on, for the whole process; the second time: nothing. GRPC_VERBOSITY and GRPC_TRACE still
// say what gRPC logs at all.
void TakeGrpcLog();

// What the kernel said to gRPC last, on this thread, e.g. "address already in use"; empty: nothing
// since the last time it was asked. gRPC tells this nowhere but in its log.
std::string TakeLastSystemError();

}  // namespace postcopy
