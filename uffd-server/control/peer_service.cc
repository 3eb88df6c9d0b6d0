#include "control/peer_service.h"

#include <string>

#include "absl/strings/str_format.h"
#include "control/convert.h"
#include "control/device_state.h"
#include "control/printable_message.h"
#include "control/rpc_status.h"
#include "core/printable_text.h"

namespace postcopy {
namespace {

// A device state as it comes in, piece by piece.
struct Incoming {
  std::string session;
  uint64_t total_bytes = 0;
  bool run = true;
  std::string bytes;
};

absl::Status TakeHead(const v1::LoadRequest& head, Incoming& incoming) {
  if (head.total_bytes() > kMaxDeviceStateBytes) {
    return absl::ResourceExhaustedError(
        absl::StrFormat("load %s: device state of %u bytes, at most %u", incoming.session,
                        head.total_bytes(), kMaxDeviceStateBytes));
  }
  incoming.run = head.run();
  incoming.total_bytes = head.total_bytes();
  return absl::OkStatus();
}

absl::Status TakePiece(const v1::LoadRequest& piece, Incoming& incoming) {
  const std::string& bytes = piece.device_state();
  if (bytes.size() > kMaxStatePieceBytes) {
    return absl::InvalidArgumentError(absl::StrFormat("load %s: piece of %d bytes, at most %d",
                                                      incoming.session, bytes.size(),
                                                      kMaxStatePieceBytes));
  }
  if (bytes.size() > incoming.total_bytes - incoming.bytes.size()) {
    return absl::InvalidArgumentError(absl::StrFormat("load %s: more than the announced %u bytes",
                                                      incoming.session, incoming.total_bytes));
  }
  incoming.bytes += bytes;  // grows with what has come, not with what was announced
  return absl::OkStatus();
}

absl::Status Receive(grpc::ServerReader<v1::LoadRequest>* reader, Incoming& incoming) {
  v1::LoadRequest piece;
  if (!reader->Read(&piece)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("load %s: no device state was sent", incoming.session));
  }
  if (auto status = TakeHead(piece, incoming); !status.ok()) return status;
  do {
    if (auto status = TakePiece(piece, incoming); !status.ok()) return status;
  } while (reader->Read(&piece));
  // A broken connection ends the stream just as the sender does.
  if (incoming.bytes.size() != incoming.total_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat("load %s: ended after %d of %u bytes",
                                                      incoming.session, incoming.bytes.size(),
                                                      incoming.total_bytes));
  }
  return absl::OkStatus();
}

}  // namespace

grpc::Status PeerService::Offer(grpc::ServerContext* context, const v1::OfferRequest* request,
                                v1::OfferResponse*) {
  const auto offer = FromProto(*request);
  if (!offer.ok()) return Answer(context, offer.status());
  return Answer(context, relocations_.OnOffer(*offer, [context] { return context->IsCancelled(); }));
}

grpc::Status PeerService::Check(grpc::ServerContext* context, const v1::OfferRequest* request,
                                v1::CheckOfferResponse* response) {
  const auto offer = CheckedOfferFromProto(*request);
  if (!offer.ok()) return Answer(context, offer.status());
  const auto findings = relocations_.OnCheck(*offer);
  if (findings.ok()) {
    for (const std::string& finding : *findings) response->add_findings(finding);
  }
  return Answer(context, findings.status());
}

grpc::Status PeerService::WarmUp(grpc::ServerContext* context, const v1::WarmUpRequest*,
                                 v1::WarmUpResponse*) {
  return Answer(context, absl::OkStatus());
}

grpc::Status PeerService::OpenIncoming(grpc::ServerContext* context,
                                       const v1::SessionRequest* request, v1::SessionResponse*) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) status = relocations_.OnOpenIncoming(request->session());
  return Answer(context, status);
}

grpc::Status PeerService::Load(grpc::ServerContext* context,
                               grpc::ServerReader<v1::LoadRequest>* reader, v1::SessionResponse*) {
  UnnamedCalls::Call unnamed(unnamed_loads_, context);
  v1::LoadRequest stopped;
  if (!reader->Read(&stopped)) {
    return Answer(context, absl::InvalidArgumentError("load: nothing was sent"));
  }
  Incoming incoming;
  incoming.session = stopped.session();
  absl::Status status = CheckSession(incoming.session);
  if (status.ok()) status = relocations_.OnStopped(incoming.session);
  if (status.ok()) unnamed.Named();
  if (status.ok()) status = Receive(reader, incoming);
  if (status.ok()) status = relocations_.OnLoad(incoming.session, incoming.run, incoming.bytes);
  return Answer(context, status);
}

grpc::Status PeerService::HandOver(grpc::ServerContext* context, const v1::SessionRequest* request,
                                   v1::HandOverResponse* response) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) {
    const auto resumed = relocations_.OnHandOver(request->session());
    if (resumed.ok()) {
      response->set_resumed_at_us(resumed->at_us);
      if (resumed->since.has_value()) response->set_since_resume_us(resumed->since->count());
    }
    status = resumed.status();
  }
  return Answer(context, status);
}

grpc::Status PeerService::Abort(grpc::ServerContext* context, const v1::AbortRequest* request,
                                v1::SessionResponse*) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) status = relocations_.OnAbort(request->session(), PrintableText(request->reason()));
  return Answer(context, status);
}

grpc::Status PeerService::Hurry(grpc::ServerContext* context, const v1::SessionRequest* request,
                                v1::SessionResponse*) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) status = relocations_.OnHurry(request->session());
  return Answer(context, status);
}

grpc::Status PeerService::Figures(grpc::ServerContext* context, const v1::SessionRequest* request,
                                  v1::Progress* response) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) {
    const auto progress = relocations_.OnFigures(request->session());
    if (progress.ok()) {
      *response = ToProto(*progress);
      MakePrintable(*response);
    }
    status = progress.status();
  }
  return Answer(context, status);
}

grpc::Status PeerService::Arrived(grpc::ServerContext* context, const v1::ArrivedRequest* request,
                                  v1::SessionResponse*) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) {
    const auto figures = FromProto(request->figures());
    status = figures.ok() ? relocations_.OnArrived(request->session(), *figures) : figures.status();
  }
  return Answer(context, status);
}

grpc::Status PeerService::ConfirmFenced(grpc::ServerContext* context,
                                        const v1::SessionRequest* request, v1::SessionResponse*) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) status = relocations_.OnConfirmFenced(request->session());
  return Answer(context, status);
}

grpc::Status PeerService::Query(grpc::ServerContext* context, const v1::QueryRequest* request,
                                v1::QueryResponse* response) {
  absl::Status status = CheckSession(request->session());
  if (status.ok()) {
    const auto role = RoleFromWord(request->role());
    absl::StatusOr<RecordedOutcome> outcome =
        relocations_.OnQuery(request->session(), role.value_or(SessionRole::kDestination));
    if (!role.has_value() && outcome.ok() && *outcome == RecordedOutcome::kNone) {
      outcome = relocations_.OnQuery(request->session(), SessionRole::kSource);
    }
    if (outcome.ok()) response->set_record(std::string(RecordWord(*outcome)));
    status = outcome.status();
  }
  return Answer(context, status);
}

}  // namespace postcopy
