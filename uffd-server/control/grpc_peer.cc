#include "control/grpc_peer.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "control/channel.h"
#include "control/convert.h"
#include "control/device_state.h"
#include "control/postcopy.grpc.pb.h"
#include "control/printable_message.h"
#include "control/rpc_status.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr seconds kOfferLimit{60};  // empties, allocates and arms all of the destination's RAM
constexpr seconds kCheckLimit{20};  // the questions to the VMM there
constexpr seconds kWarmUpLimit{1};
constexpr seconds kOpenIncomingLimit{10};
constexpr seconds kLoadLimit{15};
constexpr seconds kHandOverLimit{10};
constexpr seconds kQueryLimit{5};
constexpr seconds kFiguresLimit{2};
constexpr seconds kArrivedLimit{10};

// Doublings of a window cost nothing over it.
constexpr milliseconds kShortWay{1};

// A daemon's address and the stub that talks to it; calls with the limits and words of this file.
class Caller {
 public:
  explicit Caller(const std::string& address)
      : address_(address), stub_(v1::Peer::NewStub(OpenChannel(address))) {}

  template <typename Request, typename Response>
  absl::Status Call(std::string_view operation, milliseconds limit, const Request& request,
                    Response& response,
                    grpc::Status (v1::Peer::Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*)) const {
    grpc::ClientContext context;
    Limit(context, limit);
    const grpc::Status status = (stub_.get()->*method)(&context, request, &response);
    MakePrintable(response);
    return Named(operation, context, status);
  }

  absl::StatusOr<RecordedOutcome> Query(const std::string& session, SessionRole role) const {
    v1::QueryRequest request;
    request.set_session(session);
    request.set_role(RoleWord(role));
    v1::QueryResponse response;
    const absl::Status status =
        Call("query", kQueryLimit, request, response, &v1::Peer::Stub::Query);
    if (!status.ok()) return status;
    return RecordFromWord(response.record());
  }

  v1::Peer::Stub& stub() const { return *stub_; }

  // The outcome of a call in this class's words.
  absl::Status Named(std::string_view operation, const grpc::ClientContext& context,
                     const grpc::Status& status) const {
    const std::string callee = absl::StrFormat("%s to %s", operation, address_);
    const absl::Status outcome = Outcome(context, status, callee);
    if (outcome.ok() || outcome.message().substr(0, callee.size()) == callee) return outcome;
    return absl::Status(outcome.code(), absl::StrFormat("%s: %s", callee, outcome.message()));
  }

 private:
  const std::string address_;
  const std::unique_ptr<v1::Peer::Stub> stub_;
};

class GrpcStateTransfer final : public StateTransfer {
 public:
  GrpcStateTransfer(const Caller& caller, const std::string& session) : caller_(caller) {
    Limit(context_, kLoadLimit);
    writer_ = caller.stub().Load(&context_, &response_);
    v1::LoadRequest stopped;
    stopped.set_session(session);
    writer_->Write(stopped);  // Finish() says what is wrong
  }
  ~GrpcStateTransfer() override {
    if (finished_) return;
    context_.TryCancel();
    [[maybe_unused]] const grpc::Status cancelled = writer_->Finish();
  }
  GrpcStateTransfer(const GrpcStateTransfer&) = delete;
  GrpcStateTransfer& operator=(const GrpcStateTransfer&) = delete;

  absl::Status Finish(bool run, std::string_view device_state) override {
    v1::LoadRequest piece;
    piece.set_run(run);
    piece.set_total_bytes(device_state.size());
    do {
      const std::string_view bytes = device_state.substr(0, kMaxStatePieceBytes);
      device_state.remove_prefix(bytes.size());
      piece.set_device_state(bytes.data(), bytes.size());
      if (!writer_->Write(piece)) break;  // Finish() says why
      piece.Clear();
    } while (!device_state.empty());
    writer_->WritesDone();
    finished_ = true;
    const grpc::Status status = writer_->Finish();
    return caller_.Named("load", context_, status);
  }

 private:
  const Caller& caller_;
  grpc::ClientContext context_;
  v1::SessionResponse response_;
  std::unique_ptr<grpc::ClientWriter<v1::LoadRequest>> writer_;
  bool finished_ = false;
};

class GrpcDestinationPeer final : public DestinationPeer {
 public:
  explicit GrpcDestinationPeer(const std::string& address) : caller_(address) {}

  absl::Status MakeOffer(const Offer& offer) override {
    v1::OfferResponse response;
    return caller_.Call("offer", kOfferLimit, ToProto(offer), response, &v1::Peer::Stub::Offer);
  }

  absl::StatusOr<std::vector<std::string>> Check(const Offer& offer) override {
    v1::CheckOfferResponse response;
    const absl::Status status =
        caller_.Call("check", kCheckLimit, ToProto(offer), response, &v1::Peer::Stub::Check);
    if (!status.ok()) return status;
    return std::vector<std::string>(response.findings().begin(), response.findings().end());
  }

  void WarmUp() override {
    // What fits into a new connection's window (RFC 6928), then twice as much each time.
    size_t bytes = 12 << 10;
    auto shortest = std::chrono::steady_clock::duration::max();
    for (size_t sent = 0; sent < kUsualDeviceStateBytes; sent += bytes, bytes *= 2) {
      v1::WarmUpRequest request;
      request.mutable_padding()->resize(bytes);
      v1::WarmUpResponse response;
      const auto began = std::chrono::steady_clock::now();
      const absl::Status warmed =
          caller_.Call("warm up", kWarmUpLimit, request, response, &v1::Peer::Stub::WarmUp);
      const auto took = std::chrono::steady_clock::now() - began;
      if (!warmed.ok() || took < kShortWay) return;
      shortest = std::min(shortest, took);
      // Then it is the bandwidth that counts, or who else uses it.
      if (took > 2 * shortest) return;
    }
  }

  absl::Status OpenIncoming(const std::string& session) override {
    v1::SessionRequest request;
    request.set_session(session);
    v1::SessionResponse response;
    return caller_.Call("open incoming", kOpenIncomingLimit, request, response,
                        &v1::Peer::Stub::OpenIncoming);
  }

  std::unique_ptr<StateTransfer> BeginLoad(const std::string& session) override {
    return std::make_unique<GrpcStateTransfer>(caller_, session);
  }

  absl::StatusOr<Resumed> HandOver(const std::string& session) override {
    v1::SessionRequest request;
    request.set_session(session);
    v1::HandOverResponse response;
    const absl::Status status =
        caller_.Call("hand over", kHandOverLimit, request, response, &v1::Peer::Stub::HandOver);
    if (!status.ok()) return status;
    Resumed resumed{response.resumed_at_us(), std::nullopt};
    if (response.has_since_resume_us()) {
      resumed.since = std::chrono::microseconds(response.since_resume_us());
    }
    return resumed;
  }

  absl::Status Abort(const std::string& session, std::string_view reason,
                     milliseconds limit) override {
    v1::AbortRequest request;
    request.set_session(session);
    request.set_reason(std::string(reason));
    v1::SessionResponse response;
    return caller_.Call("abort", limit, request, response, &v1::Peer::Stub::Abort);
  }

  absl::Status Hurry(const std::string& session) override {
    v1::SessionRequest request;
    request.set_session(session);
    v1::SessionResponse response;
    return caller_.Call("hurry", kQueryLimit, request, response, &v1::Peer::Stub::Hurry);
  }

  absl::StatusOr<Progress> Figures(const std::string& session) override {
    v1::SessionRequest request;
    request.set_session(session);
    v1::Progress response;
    const absl::Status status =
        caller_.Call("figures", kFiguresLimit, request, response, &v1::Peer::Stub::Figures);
    if (!status.ok()) return status;
    return FromProto(response);
  }

  absl::StatusOr<RecordedOutcome> Query(const std::string& session) override {
    return caller_.Query(session, SessionRole::kDestination);
  }

 private:
  const Caller caller_;
};

class GrpcSourcePeer final : public SourcePeer {
 public:
  explicit GrpcSourcePeer(const std::string& address) : caller_(address) {}

  absl::Status Arrived(const std::string& session, const Progress& figures) override {
    v1::ArrivedRequest request;
    request.set_session(session);
    *request.mutable_figures() = ToProto(figures);
    v1::SessionResponse response;
    return caller_.Call("arrived", kArrivedLimit, request, response, &v1::Peer::Stub::Arrived);
  }

  absl::Status ConfirmFenced(const std::string& session) override {
    v1::SessionRequest request;
    request.set_session(session);
    v1::SessionResponse response;
    return caller_.Call("confirm the fence", kQueryLimit, request, response,
                        &v1::Peer::Stub::ConfirmFenced);
  }

  absl::StatusOr<RecordedOutcome> Query(const std::string& session) override {
    return caller_.Query(session, SessionRole::kSource);
  }

 private:
  const Caller caller_;
};

}  // namespace

std::unique_ptr<DestinationPeer> GrpcPeerFactory::ConnectDestination(const std::string& address) {
  return std::make_unique<GrpcDestinationPeer>(address);
}

std::unique_ptr<SourcePeer> GrpcPeerFactory::ConnectSource(const std::string& address) {
  return std::make_unique<GrpcSourcePeer>(address);
}

}  // namespace postcopy
