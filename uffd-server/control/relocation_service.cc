#include "control/relocation_service.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_format.h"
#include "control/convert.h"
#include "control/printable_message.h"
#include "control/rpc_status.h"
#include "control/version.h"
#include "core/session_state.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr int kMaxWatches = 64;
constexpr milliseconds kDefaultInterval{500};
constexpr milliseconds kShortestInterval{20};
constexpr milliseconds kLongestInterval{60'000};
// How soon a Watch notices that its client has gone or that the daemon ends.
constexpr milliseconds kLongestWait{200};

milliseconds IntervalOf(const v1::WatchRequest& request) {
  if (request.interval_ms() == 0) return kDefaultInterval;
  return std::clamp(milliseconds(request.interval_ms()), kShortestInterval, kLongestInterval);
}

}  // namespace

grpc::Status RelocationService::List(grpc::ServerContext* context, const v1::ListRequest*,
                                     v1::ListResponse* response) {
  for (const VmSummary& vm : relocations_.List()) *response->add_vms() = ToProto(vm);
  for (const Progress& progress : relocations_.Owed()) *response->add_owed() = ToOwed(progress);
  response->set_may_switch_off(response->owed().empty());
  response->set_version(std::string(Version()));
  MakePrintable(*response);  // one VM's words must not cost the client the others
  return Answer(context, absl::OkStatus());
}

grpc::Status RelocationService::Prepare(grpc::ServerContext* context,
                                        const v1::PrepareRequest* request,
                                        v1::PrepareResponse* response) {
  const auto session = relocations_.Prepare({.vm = request->vm(),
                                             .destination = request->destination(),
                                             .destination_vm = request->destination_vm(),
                                             .keep_source = request->keep_source()});
  if (session.ok()) response->set_session(*session);
  // Its client would never switch it, and it would keep every other relocation of this VM out. The
  // deadline as well: gRPC notices later that it has passed.
  const bool has_gone =
      context->IsCancelled() || context->deadline() <= std::chrono::system_clock::now();
  const auto now =
      session.ok() && has_gone ? relocations_.Stats(request->vm()) : absl::StatusOr<Progress>();
  if (now.ok() && now->session == *session) {
    const absl::Status cancelled = relocations_.Cancel(request->vm());
    spdlog::warn("session {}, vm {}, prepared, and whoever asked for it has gone: cancelled, {}",
                 *session, request->vm(), cancelled.ToString());
  }
  return Answer(context, session.status());
}

grpc::Status RelocationService::Check(grpc::ServerContext* context,
                                      const v1::CheckRequest* request,
                                      v1::CheckResponse* response) {
  const auto findings = relocations_.Check({.vm = request->vm(),
                                            .destination = request->destination(),
                                            .destination_vm = request->destination_vm()});
  if (findings.ok()) {
    for (const Finding& finding : *findings) {
      v1::Finding& added = *response->add_findings();
      added.set_side(finding.side);
      added.set_message(finding.message);
    }
  }
  return Answer(context, findings.status());
}

grpc::Status RelocationService::Switch(grpc::ServerContext* context,
                                       const v1::SwitchRequest* request,
                                       v1::SwitchResponse* response) {
  const auto downtime_ms = relocations_.Switch(request->session());
  if (downtime_ms.ok() && downtime_ms->has_value()) response->set_downtime_ms(**downtime_ms);
  return Answer(context, downtime_ms.status());
}

grpc::Status RelocationService::Watch(grpc::ServerContext* context, const v1::WatchRequest* request,
                                      grpc::ServerWriter<v1::Progress>* writer) {
  absl::Status status = absl::ResourceExhaustedError(
      absl::StrFormat("watch %s: %d others watch already", request->vm(), kMaxWatches));
  if (watches_.fetch_add(1, std::memory_order_relaxed) < kMaxWatches) {
    status = Stream(context, *request, writer);
  }
  watches_.fetch_sub(1, std::memory_order_relaxed);
  return Answer(context, status);
}

absl::Status RelocationService::Stream(grpc::ServerContext* context,
                                       const v1::WatchRequest& request,
                                       grpc::ServerWriter<v1::Progress>* writer) {
  const milliseconds interval = IntervalOf(request);
  auto progress = relocations_.Stats(request.vm());
  if (!progress.ok()) return progress.status();
  const std::string session = progress->session;
  for (;;) {
    v1::Progress message = ToProto(*progress);
    MakePrintable(message);
    if (!writer->Write(message)) return absl::CancelledError("the client has gone");
    if (IsFinal(progress->state)) return absl::OkStatus();
    const SessionState seen = progress->state;
    const auto due = steady_clock::now() + interval;
    do {
      if (context->IsCancelled()) return absl::CancelledError("the client has gone");
      if (ending_.load(std::memory_order_relaxed)) {
        return absl::UnavailableError(absl::StrFormat("watch %s: the daemon ends", request.vm()));
      }
      const auto left = std::chrono::ceil<milliseconds>(due - steady_clock::now());
      progress = relocations_.WaitForChange(request.vm(), seen,
                                            std::clamp(left, milliseconds(0), kLongestWait));
      if (!progress.ok()) return progress.status();
      if (progress->session != session) {
        return absl::NotFoundError(
            absl::StrFormat("watch %s: session %s has been forgotten", request.vm(), session));
      }
    } while (progress->state == seen && steady_clock::now() < due);
  }
}

grpc::Status RelocationService::Stats(grpc::ServerContext* context, const v1::StatsRequest* request,
                                      v1::Progress* response) {
  const auto progress = relocations_.Stats(request->vm());
  if (progress.ok()) {
    *response = ToProto(*progress);
    MakePrintable(*response);
  }
  return Answer(context, progress.status());
}

grpc::Status RelocationService::Hurry(grpc::ServerContext* context, const v1::HurryRequest* request,
                                      v1::HurryResponse*) {
  return Answer(context, relocations_.Hurry(request->vm()));
}

grpc::Status RelocationService::SourceLost(grpc::ServerContext* context,
                                           const v1::SourceLostRequest* request,
                                           v1::SourceLostResponse* response) {
  const auto action = FromProto(request->action());
  if (!action.ok()) return Answer(context, action.status());
  const auto report = relocations_.SourceLost(request->vm(), *action);
  if (report.ok()) {
    response->set_report(*report);
    MakePrintable(*response);
  }
  return Answer(context, report.status());
}

grpc::Status RelocationService::DestinationLost(grpc::ServerContext* context,
                                                const v1::DestinationLostRequest* request,
                                                v1::DestinationLostResponse* response) {
  const auto report = relocations_.DestinationLost(request->vm());
  if (report.ok()) {
    response->set_report(*report);
    MakePrintable(*response);
  }
  return Answer(context, report.status());
}

grpc::Status RelocationService::Cancel(grpc::ServerContext* context,
                                       const v1::CancelRequest* request, v1::CancelResponse*) {
  return Answer(context, relocations_.Cancel(request->vm()));
}

grpc::Status RelocationService::Release(grpc::ServerContext* context,
                                        const v1::ReleaseRequest* request, v1::ReleaseResponse*) {
  return Answer(context, relocations_.Release(request->vm()));
}

grpc::Status RelocationService::Recover(grpc::ServerContext* context,
                                        const v1::RecoverRequest* request,
                                        v1::RecoverResponse* response) {
  const auto report = relocations_.Recover(request->vm());
  if (report.ok()) {
    response->set_state(ToProto(report->state));
    response->set_owner(report->owner);
    response->set_report(report->report);
    MakePrintable(*response);
  }
  return Answer(context, report.status());
}

}  // namespace postcopy
