// postcopy.v1.Relocation as an operator's tool calls it.
//
// What the daemon answers comes back with its code and text; when the daemon itself cannot be
// reached the error is kUnavailable or kDeadlineExceeded and reads "daemon 127.0.0.1:7700:
// connection refused". Brings no gRPC header along.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/postcopy.pb.h"

namespace postcopy {

// Thread-safe; every call blocks, and all but Watch() for a limited time.
class RelocationClient {
 public:
  // Connects when first used. `daemon` is host:port or unix:path.
  explicit RelocationClient(const std::string& daemon);
  ~RelocationClient();

  absl::StatusOr<v1::ListResponse> List();
  // What Prepare would refuse, at both ends.
  absl::StatusOr<v1::CheckResponse> Check(const v1::CheckRequest& request);
  // The session's id.
  absl::StatusOr<std::string> Prepare(const v1::PrepareRequest& request);
  // The downtime in milliseconds; nothing: the daemon does not know it. When the daemon was lost
  // meanwhile the outcome is not known.
  absl::StatusOr<std::optional<double>> Switch(const std::string& session);
  absl::StatusOr<v1::Progress> Stats(const std::string& vm);
  // Calls `each` on this thread for every message. ok: the session has ended. kCancelled: `stop`
  // was requested, or the daemon said so.
  absl::Status Watch(const std::string& vm, std::chrono::milliseconds interval,
                     const std::stop_token& stop,
                     const std::function<void(const v1::Progress&)>& each);
  absl::Status Cancel(const std::string& vm);
  absl::Status Hurry(const std::string& vm);
  // What was done, in the daemon's words.
  absl::StatusOr<std::string> SourceLost(const std::string& vm, v1::SourceLostAction action);
  absl::StatusOr<std::string> DestinationLost(const std::string& vm);
  absl::Status Release(const std::string& vm);
  absl::StatusOr<v1::RecoverResponse> Recover(const std::string& vm);

 private:
  struct Connection;  // what gRPC needs
  const std::unique_ptr<Connection> connection_;
};

}  // namespace postcopy
