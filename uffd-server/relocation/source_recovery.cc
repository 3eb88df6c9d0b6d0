// What becomes of a SourceSession when a step fails or a daemon ends: roll-back, the question who
// owns the VM, and going on with what an earlier daemon has left.
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "relocation/source_session.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

// An operator's command waits so long for another operation of the session.
constexpr absl::Duration kTurnLimit = absl::Seconds(5);

}  // namespace

absl::StatusOr<std::shared_ptr<SourceSession>> SourceSession::TakeUp(
    const DaemonParts& parts, const OwnershipRecord& recorded, VmRecord record) {
  auto vmm = parts.connect_vmm(record);
  if (!vmm.ok()) return vmm.status();
  const auto description = (*vmm)->Describe();
  if (!description.ok()) return description.status();
  if (description->state != GuestState::kSent) {
    return absl::FailedPreconditionError(absl::StrCat(
        "VM ", recorded.vm, " was handed over to ", recorded.peer, " and its VMM here (process ",
        record.pid(), ") is in state ", description->state_text, ": its memory cannot be served"));
  }
  const PrepareOptions options{recorded.vm, recorded.peer, "", recorded.keep_source};
  const ProcessIdentity identity = IdentityOf(record);
  std::shared_ptr<SourceSession> session(new SourceSession(
      parts, options, std::move(record), identity, recorded.session, SessionState::kHandedOver));
  session->UseVmm(*std::move(vmm));
  session->stopped_ = true;
  session->Adopt(recorded);
  session->vmm_->AdoptEmptiedAtEnd(recorded.emptied_at_end);
  const auto served = session->ServeMemory(*description);
  if (!served.ok()) return served.status();
  session->FreezeMemory();
  session->FenceAgain();
  if (auto watching = session->StartWatching(); !watching.ok()) return watching;
  session->SetWatched(session->vmm_);
  const absl::Status attended = session->StartAttending();
  if (!attended.ok()) return attended;
  return session;
}

void SourceSession::Adopt(const OwnershipRecord& recorded) {
  was_running_ = recorded.run;
  may_have_run_there_ = recorded.ran_there;
  allocated_bytes_ = recorded.allocated_bytes;
  emptied_at_end_ = recorded.emptied_at_end;
  absl::MutexLock lock(&record_mutex_);
  recorded_ = recorded.mark;
}

bool SourceSession::SleepUnlessStopped(milliseconds time) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(time));
}

void SourceSession::Attend() {
  for (SessionState state = status_.state(); !IsFinal(state); state = status_.state()) {
    std::optional<absl::Status> resume_again;
    {
      absl::MutexLock lock(&mutex_);
      resume_again = resume_again_;
    }
    if (resume_again.has_value()) {
      Recover();
      if (!SleepUnlessStopped(parts_.ask_owner_every)) return;
      continue;
    }
    const bool in_doubt = state == SessionState::kHandedOver || state == SessionState::kUnknown;
    if (in_doubt) {
      const RecoveryReport report = Recover();
      if (report.owner == "unknown" && report.report != attended_) {
        spdlog::warn("session {}, {}", session_text_, report.report);
        attended_ = report.report;
      }
    } else if (state == SessionState::kRunning) {
      AskWhetherArrived();
    }
    const bool arriving = status_.state() == SessionState::kRunning;
    if (!SleepUnlessStopped((arriving ? 5 : 1) * parts_.ask_owner_every)) return;
  }
}

void SourceSession::AskWhetherArrived() {
  // In this order: where "committed" stands for memory that was given up, the session there has
  // failed by then.
  const auto recorded = destination_->Query(session_text_);
  const Progress figures = Snapshot();  // notes a VM that has ended there, too
  if (!recorded.ok() || IsFinal(status_.state())) return;
  switch (*recorded) {
    case RecordedOutcome::kCommitted: {
      const absl::Status arrived = OnArrived(figures);
      if (!arrived.ok()) spdlog::warn("session {}, {}", session_text_, arrived.ToString());
      return;
    }
    case RecordedOutcome::kPrepared:
    case RecordedOutcome::kNever:
      // It runs no guest before its record is durable, so it never ran this one.
      status_.Apply(SessionEvent::kInDoubt,
                    absl::StrCat(options_.destination, " no longer has the record that it owns VM ",
                                 options_.vm));
      return;
    case RecordedOutcome::kNone:
    case RecordedOutcome::kHandedOver:
    case RecordedOutcome::kRolledBack:
    case RecordedOutcome::kOwner:
    case RecordedOutcome::kUnreadable: return;
  }
}

absl::Status SourceSession::EndBeforeSwitch() {
  const auto exit = vmm_ == nullptr ? std::nullopt : vmm_->OrderlyExit();
  if (!exit.has_value()) {
    const std::string error =
        absl::StrCat("VM ", options_.vm, " has ended as in a crash: its VMM (process ",
                     record_.pid(), ") ended before the switch, and nothing was handed over");
    status_.Apply(SessionEvent::kVmLost, error);
    parts_.page_server.Remove(session_);
    vmm_.reset();
    return absl::DataLossError(error);
  }
  const std::string why =
      absl::StrCat("VM ", options_.vm, " has ended here before the switch: ", *exit,
                   "; it was not stopped for the relocation, and nothing was handed over");
  const absl::Status recorded = Write(OwnershipMark::kRolledBack);
  if (!recorded.ok()) spdlog::error("session {}, {}", session_text_, recorded.ToString());
  status_.Apply(SessionEvent::kRollBack, why);
  parts_.page_server.Remove(session_);
  vmm_.reset();
  return absl::AbortedError(absl::StrCat("rolled back: ", why));
}

absl::Status SourceSession::RollBack(const absl::Status& cause, bool must_ask_destination) {
  // Decided, and tried again: what the destination says now must not count.
  const auto recorded_before = parts_.store.Read(session_, SessionRole::kSource);
  if (recorded_before.ok() && recorded_before->mark == OwnershipMark::kRolledBack) return GoOnHere(cause);
  const std::string why(cause.message());
  const absl::Status aborted = destination_->Abort(
      session_text_, why, must_ask_destination ? kAbortTimeout : kQuickAbortTimeout);
  if (aborted.code() == absl::StatusCode::kFailedPrecondition) {
    status_.Apply(SessionEvent::kHandOver);
    return absl::InternalError(absl::StrCat(why, "; VM ", options_.vm, " is owned by ",
                                            options_.destination, " and stays stopped here (",
                                            std::string(aborted.message()), ")"));
  }
  if (IsDeadNotRecorded(aborted)) {
    // Before the guest runs here: what the destination's disk says later must not count.
    const absl::Status recorded = WriteToBeResumed();
    if (!recorded.ok()) {
      const std::string error = absl::StrCat(
          why, "; ", std::string(aborted.message()), "; VM ", options_.vm,
          " could run here, and that cannot be recorded here either: ",
          std::string(recorded.message()), "; it stays stopped here, and this is tried again");
      status_.Apply(SessionEvent::kInDoubt, error);
      return absl::InternalError(error);
    }
  } else if (!aborted.ok() && must_ask_destination) {
    const std::string error = absl::StrCat(
        why, "; it is not known whether ", options_.destination, " owns VM ", options_.vm, " (",
        std::string(aborted.message()), "); it stays stopped here and asks on; `postcopyctl recover ", options_.vm, "` tells more");
    status_.Apply(SessionEvent::kInDoubt, error);
    return absl::InternalError(error);
  }
  // Where the destination could not be reached: it has not been told that it owns the VM, and
  // without that it never runs it.
  return GoOnHere(cause);
}

absl::Status SourceSession::GoOnHere(const absl::Status& cause) {
  const bool cancelled = cause.code() == absl::StatusCode::kCancelled;
  const std::string why(cause.message());
  SetWatched(nullptr);
  if (!stopped_ && !cancelled && record_.process.HasEnded()) return EndBeforeSwitch();
  if (stopped_) {
    const absl::Status resumed = ResumeHere();
    if (!resumed.ok() && record_.process.HasEnded()) {
      const std::string error = absl::StrCat(
          "VM ", options_.vm, " has ended as in a crash: its VMM (process ", record_.pid(),
          ") ended during the switch, and nobody else can run it; cause: ", why);
      status_.Apply(SessionEvent::kVmLost, error);
      parts_.page_server.Remove(session_);
      return absl::DataLossError(error);
    }
    absl::MutexLock lock(&mutex_);
    resume_again_ = resumed.ok() ? std::nullopt : std::optional<absl::Status>(cause);
    if (!resumed.ok()) {
      const std::string error =
          absl::StrCat(why, "; VM ", options_.vm, " stays here and could not be resumed yet (",
                       std::string(resumed.message()), "); it is tried again");
      status_.Update([&](Progress& progress) { progress.error = error; });
      return absl::InternalError(error);
    }
  } else {
    const absl::Status restored = vmm_->RestoreSettings();
    if (!restored.ok()) spdlog::warn("vm {}, {}", options_.vm, restored.ToString());
  }
  const absl::Status recorded = Write(OwnershipMark::kRolledBack);
  if (!recorded.ok()) spdlog::error("session {}, {}", session_text_, recorded.ToString());
  status_.Apply(cancelled ? SessionEvent::kCancel : SessionEvent::kRollBack, why);
  parts_.page_server.Remove(session_);
  vmm_.reset();
  if (cancelled) return cause;
  return absl::AbortedError(
      absl::StrCat("rolled back, VM ", options_.vm, " goes on at the source: ", why));
}

absl::StatusOr<std::string> SourceSession::DestinationLost() {
  const std::string doing = absl::StrCat("destination-lost ", options_.vm);
  Turn::Holder turn(turn_, kTurnLimit);
  if (!turn.holds()) {
    return absl::FailedPreconditionError(absl::StrCat(
        doing, ": it is still being handed over; say it again when `postcopyctl relocate` has ended"));
  }
  const SessionState state = status_.state();
  if (state == SessionState::kRunning || may_have_run_there_) {
    return absl::FailedPreconditionError(absl::StrCat(
        doing, ": ", options_.destination, " has run it: what is here is the VM as it was before that, and what "
        "it has written to its disks since does not fit it. Restart it from its disks"));
  }
  if (state != SessionState::kUnknown && state != SessionState::kHandedOver) {
    return absl::FailedPreconditionError(absl::StrCat(doing, ": it is known who owns it, the session is ",
                                                      std::string(Name(state))));
  }
  if (record_.process.HasEnded()) {
    return absl::FailedPreconditionError(absl::StrCat(
        doing, ": its VMM here (process ", record_.pid(), ") has ended, too: restart it from its disks"));
  }
  const auto answer = destination_->Query(session_text_);
  if (answer.ok() ||
      (!absl::IsUnavailable(answer.status()) && !absl::IsDeadlineExceeded(answer.status()))) {
    return absl::FailedPreconditionError(absl::StrCat(
        doing, ": ", options_.destination, " is not out of reach; `postcopyctl recover ", options_.vm,
        "` asks it who owns the VM"));
  }
  if (parts_.page_server.HasLanes(session_)) {
    return absl::FailedPreconditionError(absl::StrCat(
        doing, ": ", options_.destination, " does not answer at its control address, but fetches memory from "
        "here; connections of a host that is gone are given up within 20 s"));
  }
  if (!Decide(Decision::kTakenBack)) {
    return absl::FailedPreconditionError(absl::StrCat(
        doing, ": ", options_.destination, " has just said that the VM runs there"));
  }
  // Before the guest runs here: what the destination's disk says later must not count.
  if (const absl::Status recorded = WriteToBeResumed(); !recorded.ok()) {
    // It may be there all the same, and must not count once the destination is asked again.
    if (Write(OwnershipMark::kHandedOver).ok()) {
      absl::MutexLock lock(&mutex_);
      decision_.reset();
    }
    return Prefixed(absl::StrCat(doing, ": it stays stopped here"), recorded);
  }
  spdlog::warn("session {}, vm {}, an operator has given {} up ({})", session_text_, options_.vm,
               options_.destination, std::string(answer.status().message()));
  const absl::Status resumed =
      GoOnHere(absl::AbortedError(absl::StrCat(options_.destination, " was given up by an operator")));
  if (absl::IsAborted(resumed)) return std::string(resumed.message());
  return Prefixed(doing, resumed);
}

absl::Status SourceSession::ConnectVmm() {
  if (vmm_ != nullptr) return absl::OkStatus();
  auto vmm = parts_.connect_vmm(record_);
  if (!vmm.ok()) return vmm.status();
  UseVmm(*std::move(vmm));
  if (stopped_) vmm_->AdoptEmptiedAtEnd(emptied_at_end_);
  return absl::OkStatus();
}

absl::Status SourceSession::ResumeHere() {
  if (auto connected = ConnectVmm(); !connected.ok()) return connected;
  // A guest that runs behind the fence would end its VMM.
  if (auto lifted = LiftFence(); !lifted.ok()) return lifted;
  const absl::Status resumed = vmm_->ResumeSource(was_running_);
  if (!resumed.ok()) vmm_.reset();  // its connection may be what is broken
  return resumed;
}

bool SourceSession::WasHandedOver() const {
  const auto recorded = parts_.store.Read(session_, SessionRole::kSource);
  return recorded.ok() && (recorded->mark == OwnershipMark::kHandedOver ||
                           recorded->mark == OwnershipMark::kCommitted);
}

RecoveryReport SourceSession::Recover() {
  Turn::Holder turn(turn_);
  std::optional<absl::Status> resume_again;
  {
    absl::MutexLock lock(&mutex_);
    resume_again = resume_again_;
  }
  if (resume_again.has_value()) {
    const absl::Status resumed = RollBack(*resume_again, /*must_ask_destination=*/false);
    return {status_.state(), "source", std::string(resumed.message())};
  }
  const SessionState state = status_.state();
  if (state != SessionState::kUnknown && state != SessionState::kHandedOver) {
    RecoveryReport report{state, "", ""};
    if (state == SessionState::kFailed && WasHandedOver()) {
      report.owner = "destination";
      report.report = absl::StrCat(
          "VM ", options_.vm, " was handed over to ", options_.destination,
          " and has failed there: ", status_.Snapshot().error,
          record_.process.HasEnded()
              ? ""
              : absl::StrCat(". Never `cont` its VMM here (process ", record_.pid(),
                             "): it would run what the VM was before it ran there; `quit` it when it "
                             "is not needed any more"));
      return report;
    }
    report.owner = IsAfterSwitch(state) ? "destination" : "source";
    report.report = absl::StrCat("VM ", options_.vm, ": session ", session_text_, " is ",
                                 std::string(Name(state)), "; nothing needs to be recovered");
    return report;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (decision_ == Decision::kTakenBack) {
      return {state, "unknown",
              absl::StrCat("VM ", options_.vm, " stays stopped here: an operator has given ",
                           options_.destination, " up, and that could not be recorded; say `postcopyctl "
                           "destination-lost ", options_.vm, " --resume` again")};
    }
  }
  const auto recorded = destination_->Query(session_text_);
  if (!recorded.ok()) {
    return {state, "unknown",
            absl::StrCat("VM ", options_.vm, " stays stopped here: ", options_.destination,
                         " cannot be asked who owns it (", std::string(recorded.status().message()),
                         ") and may run it. If it never will be reached again, and the VM never ran there: "
                         "`postcopyctl destination-lost ", options_.vm, " --resume`. Do not `cont` its VMM here (process ", record_.pid(),
                         fenced_ ? "): it is fenced, so that would end it" : "): that could run it twice")};
  }
  if (*recorded == RecordedOutcome::kOwner || *recorded == RecordedOutcome::kCommitted) {
    NoteRanThere();
    // Its word is to last here, too: the record may have been written in part only.
    const absl::Status recorded_here = Write(OwnershipMark::kHandedOver);
    if (!recorded_here.ok()) {
      return {state, "destination",
              absl::StrCat("VM ", options_.vm, " is owned by ", options_.destination,
                           ", and this cannot be recorded here: ",
                           std::string(recorded_here.message()))};
    }
    status_.Apply(SessionEvent::kHandOver);
    status_.Apply(SessionEvent::kResumed);
    status_.Update([](Progress& progress) { progress.error.clear(); });
    return {status_.state(), "destination",
            absl::StrCat("VM ", options_.vm, " is owned by ", options_.destination,
                         "; its memory goes on arriving there")};
  }
  if (*recorded == RecordedOutcome::kNone) {
    return {state, "unknown",
            absl::StrCat(
                "VM ", options_.vm, " stays stopped here: ", options_.destination,
                " has no record of session ", session_text_,
                ", as if its state directory had "
                "been lost. Resuming it here by hand could run it twice, unless it does not run "
                "there")};
  }
  if (state == SessionState::kHandedOver && *recorded != RecordedOutcome::kNever) {
    // The record here says so, and the destination waits for the word.
    const auto handed_over = destination_->HandOver(session_text_);
    if (handed_over.ok()) {
      NoteResumed(*handed_over);
      status_.Apply(SessionEvent::kResumed);
      return {status_.state(), "destination",
              absl::StrCat("VM ", options_.vm, " was handed over again and runs at ",
                           options_.destination)};
    }
    if (!absl::IsAborted(handed_over.status()) && !IsDeadNotRecorded(handed_over.status())) {
      return {state, "unknown",
              absl::StrCat("VM ", options_.vm, " stays stopped here: it was handed over to ",
                           options_.destination, ", which has not taken it yet (",
                           std::string(handed_over.status().message()), ")")};
    }
  }
  const absl::Status rolled_back =
      RollBack(absl::AbortedError("recovered"), /*must_ask_destination=*/true);
  return {status_.state(), status_.state() == SessionState::kRolledBack ? "source" : "unknown",
          std::string(rolled_back.message())};
}

}  // namespace postcopy
