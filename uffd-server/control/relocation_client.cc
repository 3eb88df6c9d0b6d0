#include "control/relocation_client.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include "control/channel.h"
#include "control/postcopy.grpc.pb.h"
#include "control/printable_message.h"
#include "control/rpc_status.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kShortCallLimit{10};
// The daemon's own limits towards its peer and its VMM, and some more.
constexpr seconds kPrepareLimit{120};
constexpr seconds kWholeCheckLimit{40};
constexpr seconds kSwitchLimit{180};
constexpr seconds kCancelLimit{60};
constexpr seconds kHurryLimit{10};
constexpr seconds kSourceLostLimit{120};
constexpr seconds kRecoverLimit{60};

}  // namespace

struct RelocationClient::Connection {
  explicit Connection(const std::string& daemon)
      : callee("daemon " + daemon), stub(v1::Relocation::NewStub(OpenChannel(daemon))) {}

  template <typename Request, typename Response>
  absl::Status Call(seconds limit, const Request& request, Response& response,
                    grpc::Status (v1::Relocation::Stub::*method)(grpc::ClientContext*,
                                                                 const Request&, Response*)) {
    grpc::ClientContext context;
    Limit(context, limit);
    const grpc::Status status = (stub.get()->*method)(&context, request, &response);
    MakePrintable(response);
    return Outcome(context, status, callee);
  }

  const std::string callee;
  const std::unique_ptr<v1::Relocation::Stub> stub;
};

RelocationClient::RelocationClient(const std::string& daemon)
    : connection_(std::make_unique<Connection>(daemon)) {}

RelocationClient::~RelocationClient() = default;

absl::StatusOr<v1::ListResponse> RelocationClient::List() {
  v1::ListResponse response;
  const absl::Status status =
      connection_->Call(kShortCallLimit, v1::ListRequest(), response, &v1::Relocation::Stub::List);
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<v1::CheckResponse> RelocationClient::Check(const v1::CheckRequest& request) {
  v1::CheckResponse response;
  const absl::Status status =
      connection_->Call(kWholeCheckLimit, request, response, &v1::Relocation::Stub::Check);
  if (!status.ok()) return status;
  return response;
}

absl::StatusOr<std::string> RelocationClient::Prepare(const v1::PrepareRequest& request) {
  v1::PrepareResponse response;
  const absl::Status status =
      connection_->Call(kPrepareLimit, request, response, &v1::Relocation::Stub::Prepare);
  if (!status.ok()) return status;
  return response.session();
}

absl::StatusOr<std::optional<double>> RelocationClient::Switch(const std::string& session) {
  v1::SwitchRequest request;
  request.set_session(session);
  v1::SwitchResponse response;
  const absl::Status status =
      connection_->Call(kSwitchLimit, request, response, &v1::Relocation::Stub::Switch);
  if (!status.ok()) return status;
  return response.has_downtime_ms() ? std::optional<double>(response.downtime_ms())
                                    : std::nullopt;
}

absl::StatusOr<v1::Progress> RelocationClient::Stats(const std::string& vm) {
  v1::StatsRequest request;
  request.set_vm(vm);
  v1::Progress response;
  const absl::Status status =
      connection_->Call(kShortCallLimit, request, response, &v1::Relocation::Stub::Stats);
  if (!status.ok()) return status;
  return response;
}

absl::Status RelocationClient::Watch(const std::string& vm, milliseconds interval,
                                     const std::stop_token& stop,
                                     const std::function<void(const v1::Progress&)>& each) {
  v1::WatchRequest request;
  request.set_vm(vm);
  request.set_interval_ms(static_cast<uint32_t>(interval.count()));
  grpc::ClientContext context;
  context.set_wait_for_ready(false);
  const std::stop_callback cancel(stop, [&context] { context.TryCancel(); });
  auto reader = connection_->stub->Watch(&context, request);
  v1::Progress progress;
  while (reader->Read(&progress)) {
    MakePrintable(progress);
    each(progress);
  }
  const grpc::Status status = reader->Finish();
  return Outcome(context, status, connection_->callee);
}

absl::Status RelocationClient::Hurry(const std::string& vm) {
  v1::HurryRequest request;
  request.set_vm(vm);
  v1::HurryResponse response;
  return connection_->Call(kHurryLimit, request, response, &v1::Relocation::Stub::Hurry);
}

absl::StatusOr<std::string> RelocationClient::SourceLost(const std::string& vm,
                                                         v1::SourceLostAction action) {
  v1::SourceLostRequest request;
  request.set_vm(vm);
  request.set_action(action);
  v1::SourceLostResponse response;
  const absl::Status status =
      connection_->Call(kSourceLostLimit, request, response, &v1::Relocation::Stub::SourceLost);
  if (!status.ok()) return status;
  return response.report();
}

absl::StatusOr<std::string> RelocationClient::DestinationLost(const std::string& vm) {
  v1::DestinationLostRequest request;
  request.set_vm(vm);
  v1::DestinationLostResponse response;
  const absl::Status status = connection_->Call(kCancelLimit, request, response,
                                                &v1::Relocation::Stub::DestinationLost);
  if (!status.ok()) return status;
  return response.report();
}

absl::Status RelocationClient::Cancel(const std::string& vm) {
  v1::CancelRequest request;
  request.set_vm(vm);
  v1::CancelResponse response;
  return connection_->Call(kCancelLimit, request, response, &v1::Relocation::Stub::Cancel);
}

absl::Status RelocationClient::Release(const std::string& vm) {
  v1::ReleaseRequest request;
  request.set_vm(vm);
  v1::ReleaseResponse response;
  return connection_->Call(kShortCallLimit, request, response, &v1::Relocation::Stub::Release);
}

absl::StatusOr<v1::RecoverResponse> RelocationClient::Recover(const std::string& vm) {
  v1::RecoverRequest request;
  request.set_vm(vm);
  v1::RecoverResponse response;
  const absl::Status status =
      connection_->Call(kRecoverLimit, request, response, &v1::Relocation::Stub::Recover);
  if (!status.ok()) return status;
  return response;
}

}  // namespace postcopy
