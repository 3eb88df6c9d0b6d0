// The commands that move a VM: prepare, switch, and wait until its memory has followed.
//
// Ctrl-C before the switch gives the relocation up. After it there is no way back: the command ends
// and memory goes on arriving without it.
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/json_output.h"
#include "cli/watching.h"
#include "control/relocation_client.h"

namespace postcopy {
namespace {

using std::chrono::steady_clock;

struct Ending {
  ExitCode code = ExitCode::kOk;
  std::string complaint;     // empty: none
  std::string_view outcome;  // empty: the code's own word
};

class Relocating {
 public:
  explicit Relocating(const Invocation& invocation)
      : invocation_(invocation), client_(invocation.daemon) {
    last_.set_vm(invocation.vm);
  }

  ExitCode FromPrepare(const RelocateOptions& options) {
    NoteInterrupts();
    return Close(Prepare(options));
  }

  ExitCode FromSwitch(bool wait) {
    NoteInterrupts();
    const auto progress = client_.Stats(invocation_.vm);
    if (!progress.ok()) return Close(Because(progress.status()));
    return Close(SwitchAndWatch(progress->session(), wait));
  }

 private:
  Ending Prepare(const RelocateOptions& options);
  Ending SwitchAndWatch(const std::string& session, bool wait);
  Ending AwaitCommit(Watching& watching);
  // What a Switch that did not succeed came to.
  Ending AfterFailedSwitch(const absl::Status& status, const std::string& session);
  // After Ctrl-C, when Prepare has returned.
  Ending GiveUp();

  Ending Because(const absl::Status& status) const {
    return {ForStatus(status), MessageOf(invocation_, status), ""};
  }

  // Prints how it ended.
  ExitCode Close(const Ending& ending);
  double TotalMs() const;
  // A line for a person, unless JSON was asked for; then on stderr.
  void Say(const std::string& text) const {
    absl::FPrintF(invocation_.json ? stderr : stdout, "%s: %s\n", invocation_.vm, text);
    std::fflush(stdout);
  }

  const Invocation& invocation_;
  RelocationClient client_;
  const steady_clock::time_point began_ = steady_clock::now();
  std::optional<steady_clock::time_point> committed_at_;
  v1::Progress last_;
};

Ending Relocating::Prepare(const RelocateOptions& options) {
  v1::PrepareRequest request;
  request.set_vm(invocation_.vm);
  request.set_destination(options.destination);
  request.set_destination_vm(options.destination_vm);
  request.set_keep_source(options.keep_source);
  Say("preparing " + options.destination);
  absl::StatusOr<std::string> session;
  RunInterruptibly([&] { session = client_.Prepare(request); },
                   [&] {
                     Say("cancelling");
                     client_.Cancel(invocation_.vm).IgnoreError();  // GiveUp() makes sure
                   });
  if (!session.ok() && !Interrupted()) return Because(session.status());
  if (!session.ok()) return {ExitCode::kCancelled, std::string(session.status().message()), ""};
  last_.set_session(*session);
  last_.set_state(v1::STATE_PREPARED);
  if (Interrupted()) return GiveUp();
  if (options.prepare_only) {
    Say(absl::StrCat("prepared, session ", *session, "; go on with `postcopyctl switch ",
                     invocation_.vm, "` or `postcopyctl cancel ", invocation_.vm, "`"));
    return {ExitCode::kOk, "", "prepared"};
  }
  return SwitchAndWatch(*session, options.wait);
}

Ending Relocating::GiveUp() {
  const absl::Status cancelled = client_.Cancel(invocation_.vm);
  if (!cancelled.ok() && !absl::IsNotFound(cancelled)) {
    const auto progress = client_.Stats(invocation_.vm);
    if (!progress.ok() || ForEndState(progress->state()) != ExitCode::kCancelled) {
      return Because(cancelled);
    }
  }
  last_.set_state(v1::STATE_CANCELLED);
  return {ExitCode::kCancelled, "cancelled before the switch; it goes on here", ""};
}

Ending Relocating::SwitchAndWatch(const std::string& session, bool wait) {
  Watching watching(client_, invocation_.vm, PrinterFor(invocation_.json));
  absl::StatusOr<std::optional<double>> downtime_ms;
  RunInterruptibly([&] { downtime_ms = client_.Switch(session); },
                   [&] {
                     const absl::Status cancelled = client_.Cancel(invocation_.vm);
                     if (!cancelled.ok())
                       watching.Say(absl::StrCat("cancel: ", cancelled.message()));
                   });
  Ending ending;
  if (!downtime_ms.ok()) {
    watching.Stop();
    if (v1::Progress seen = watching.last(); !seen.session().empty()) last_ = std::move(seen);
    return AfterFailedSwitch(downtime_ms.status(), session);
  }
  if (wait) {
    ending = AwaitCommit(watching);
  } else {
    ending.outcome = "switched";
  }
  watching.Stop();
  if (const v1::Progress seen = watching.last(); !seen.session().empty()) last_ = seen;
  committed_at_ = watching.committed_at();
  if (!last_.has_downtime_ms() && downtime_ms->has_value()) last_.set_downtime_ms(**downtime_ms);
  if (!invocation_.json) absl::PrintF("%s\n", watching.Summary(TotalMs()));
  return ending;
}

Ending Relocating::AwaitCommit(Watching& watching) {
  if (!WaitUnlessInterrupted(watching.ended())) {
    return {ExitCode::kUnfinished,
            "interrupted; it already runs at the destination and its memory goes on arriving", ""};
  }
  const absl::Status status = watching.Join();
  const v1::Progress last = watching.last();
  if (!status.ok()) {
    return {ExitCode::kUnfinished,
            absl::StrFormat("switched, but its progress cannot be seen any more: %s; `postcopyctl "
                            "watch %s` goes on watching",
                            std::string(status.message()), invocation_.vm),
            ""};
  }
  const ExitCode code = ForEndState(last.state());
  if (!last.note().empty()) Say(last.note());
  if (code == ExitCode::kOk) return {code, "", "committed"};
  return {code, last.error(), ""};
}

Ending Relocating::AfterFailedSwitch(const absl::Status& status, const std::string& session) {
  Ending ending = Because(status);
  const bool sure = ending.code == ExitCode::kRolledBack || ending.code == ExitCode::kCancelled ||
                    ending.code == ExitCode::kNoSuchVm || ending.code == ExitCode::kMisfit;
  // The session's state as it is now, not as the watch has seen it last. Where the call failed, which
  // says nothing about the switch, it also tells what became of that.
  const auto progress = client_.Stats(invocation_.vm);
  const bool same = progress.ok() && progress->session() == session;
  if (same) last_ = *progress;
  if (sure) {
    if (!same && ending.code == ExitCode::kRolledBack) last_.set_state(v1::STATE_ROLLED_BACK);
    if (!same && ending.code == ExitCode::kCancelled) last_.set_state(v1::STATE_CANCELLED);
    return ending;
  }
  if (!same) {
    ending.code = ExitCode::kUnfinished;
    absl::StrAppend(&ending.complaint,
                    "; whether the switch took place is not known, `postcopyctl recover ",
                    invocation_.vm, "` finds out");
    return ending;
  }
  if (progress->state() != v1::STATE_PREPARED) ending.code = ForEndState(progress->state());
  if (ending.code == ExitCode::kOk) ending.code = ExitCode::kUnfinished;
  return ending;
}

double Relocating::TotalMs() const {
  const auto end = committed_at_.value_or(steady_clock::now());
  return std::chrono::duration<double, std::milli>(end - began_).count();
}

ExitCode Relocating::Close(const Ending& ending) {
  if (!ending.complaint.empty()) Complain(invocation_, ending.complaint);
  if (invocation_.json) {
    const std::string_view outcome =
        ending.outcome.empty() ? OutcomeWord(ending.code) : ending.outcome;
    auto json = WithFigures(last_, outcome,
                            ending.complaint.empty() ? last_.error() : ending.complaint);
    json["total_ms"] = TotalMs();
    PrintJson(json);
  }
  return ending.code;
}

}  // namespace

ExitCode Relocate(const Invocation& invocation, const RelocateOptions& options) {
  return Relocating(invocation).FromPrepare(options);
}

ExitCode Switch(const Invocation& invocation, bool wait) {
  return Relocating(invocation).FromSwitch(wait);
}

}  // namespace postcopy
