#include "relocation/source_session.h"

#include <spdlog/spdlog.h>

#include <random>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "relocation/check.h"
#include "relocation/downtime.h"
#include "relocation/fit.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr int kHandOverTries = 20;
// Of a destination that answers: it gives the VM back after 10 s in which its VMM refuses to start it.
constexpr int kAnsweredTries = 40;
constexpr double kLongestMs = 1e12;  // what a peer says of longer times is not believed

SessionId MakeSessionId() {
  std::random_device random;  // getrandom() on Linux
  SessionId id;
  for (std::byte& byte : id.bytes) byte = static_cast<std::byte>(random());
  return id;
}

Progress InitialProgress(const PrepareOptions& options, const SessionId& session,
                         SessionState state) {
  Progress progress;
  progress.vm = options.vm;
  progress.session = session.ToString();
  progress.peer = options.destination;
  progress.role = SessionRole::kSource;
  progress.state = state;
  return progress;
}

// Of a VM that came here in a session that this daemon no longer has: armed still, it may lack pages,
// which would go on as zeros.
absl::Status CheckMemoryHasArrived(const DaemonParts& parts, const VmRecord& record) {
  if (!record.arming.has_value()) return absl::OkStatus();
  const SessionId& arrival = record.arming->session_id;
  const auto recorded = parts.store.Read(arrival, SessionRole::kDestination);
  if (recorded.ok() && (recorded->mark == OwnershipMark::kCommitted ||
                        recorded->mark == OwnershipMark::kArrived)) {
    return parts.registry.Release(record.name, arrival);
  }
  if (recorded.ok() && recorded->mark == OwnershipMark::kIncomplete) {
    return absl::FailedPreconditionError(absl::StrCat(
        "VM ", record.name, ": a part of its memory was lost for good when it came here from ",
        recorded->peer, " (session ", arrival.ToString(),
        "), so it cannot be relocated; `postcopyctl "
        "recover ",
        record.name, "` tells more"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat("VM ", record.name, ": its memory has not arrived completely (session ",
                   arrival.ToString(), "); `postcopyctl recover ", record.name, "` tells more"));
}

}  // namespace

SourceSession::SourceSession(const DaemonParts& parts, const PrepareOptions& options,
                             VmRecord record, ProcessIdentity vmm, SessionId session,
                             SessionState state)
    : parts_(parts),
      options_(options),
      session_(session),
      session_text_(session.ToString()),
      record_(std::move(record)),
      vmm_identity_(std::move(vmm)),
      status_(InitialProgress(options, session, state)),
      destination_(parts.peers.ConnectDestination(options.destination)) {}

absl::StatusOr<std::shared_ptr<SourceSession>> SourceSession::Prepare(
    const DaemonParts& parts, const PrepareOptions& options) {
  auto record = parts.registry.Find(options.vm);
  if (!record.ok()) return record.status();
  if (!record->problem.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("VM ", options.vm, " runs unhooked: ", record->problem));
  }
  const absl::Status complete = CheckMemoryHasArrived(parts, *record);
  if (!complete.ok()) return complete;
  const ProcessIdentity identity = IdentityOf(*record);
  std::shared_ptr<SourceSession> session(new SourceSession(
      parts, options, std::move(*record), identity, MakeSessionId(), SessionState::kPrepared));
  const std::string vm_name = absl::StrCat("source VM ", options.vm);
  auto vmm = parts.connect_vmm(session->record_);
  if (!vmm.ok()) return Prefixed(vm_name, absl::FailedPreconditionError(vmm.status().message()));
  session->UseVmm(*std::move(vmm));
  const auto description = session->vmm_->Describe();
  if (!description.ok()) {
    return Prefixed(vm_name, absl::FailedPreconditionError(description.status().message()));
  }
  absl::Status status = CheckSource(*description, session->record_.pid());
  if (!status.ok()) return Prefixed(vm_name, status);
  auto print = session->vmm_->Print();
  if (!print.ok()) {
    return Prefixed(vm_name, absl::FailedPreconditionError(print.status().message()));
  }
  session->print_ = *std::move(print);
  auto offer = session->MakeOffer(*description);
  if (!offer.ok()) return Prefixed(vm_name, offer.status());

  // "Prepared" is on disk before anything can be handed over: a daemon that restarts knows from it
  // that this VM stayed here, and whether it ran.
  session->was_running_ = description->state == GuestState::kRunning;
  session->emptied_at_end_ = description->emptied_at_end;
  bool created = false;  // the record, by this call
  // However this ends but well.
  absl::Cleanup undo = [&session, &parts, &options, &created] {
    const absl::Status restored = session->vmm_->RestoreSettings();
    if (!restored.ok()) spdlog::warn("vm {}, {}", options.vm, restored.ToString());
    parts.page_server.Remove(session->session_);
    if (created) parts.store.Remove(session->session_, SessionRole::kSource);
  };
  status = session->StartAttending();  // while nothing depends on it
  if (status.ok()) {
    status = NothingDone(parts.store.Create(session->RecordOf(OwnershipMark::kPrepared)));
    created = status.ok();
  }
  if (status.ok()) status = session->vmm_->PrepareSource();
  if (status.ok()) {
    status = Prefixed(absl::StrCat("destination ", options.destination),
                      session->destination_->MakeOffer(*offer));
  }
  if (!status.ok()) return status;
  std::move(undo).Cancel();
  return session;
}

absl::Status SourceSession::StartAttending() {
  auto attendant = DaemonThread::Start("pc-source", [this] { Attend(); });
  if (!attendant.ok()) return attendant.status();
  attendant_ = *std::move(attendant);
  return absl::OkStatus();
}

absl::StatusOr<std::optional<double>> SourceSession::Switch() {
  Turn::Holder turn(turn_);
  if (!status_.Apply(SessionEvent::kSwitchBegins)) {
    return absl::FailedPreconditionError(
        absl::StrCat("switch ", options_.vm, ": the session is ",
                     std::string(Name(status_.state()))));
  }
  const absl::Status loaded = Caught([this] { return StopAndLoad(); });
  if (!loaded.ok()) return RollBack(loaded, /*must_ask_destination=*/false);
  if (CancelRequested()) {
    return RollBack(absl::CancelledError("cancelled by an operator"), false);
  }
  const absl::Status recorded = Caught([this] { return RecordHandOver(); });
  // The record may have been written all the same: only the destination's word helps now.
  if (!recorded.ok()) return RollBack(recorded, /*must_ask_destination=*/true);
  return FinishHandOver();
}

absl::Status SourceSession::CheckStillMovable() {
  const auto running = vmm_->CheckMovable();
  if (!running.ok()) return Prefixed("source", running.status());
  if (*running == was_running_) return absl::OkStatus();
  // A daemon that restarts while the VM is held has to know.
  was_running_ = *running;
  return Write(OwnershipMark::kPrepared);
}

absl::Status SourceSession::StopAndLoad() {
  if (auto watching = StartWatching(); !watching.ok()) return watching;
  // Before the destination's VMM is opened, which uses it up.
  if (auto movable = CheckStillMovable(); !movable.ok()) return movable;
  const absl::Status unchanged = CheckUnchanged(*vmm_, print_);
  if (!unchanged.ok()) return Prefixed("source", unchanged);
  destination_->WarmUp();
  absl::Status opened = destination_->OpenIncoming(session_text_);
  if (!opened.ok()) return Prefixed("destination", opened);
  parts_.faults.Reach("opened");
  if (CancelRequested()) return absl::CancelledError("cancelled by an operator");
  stopped_ = true;  // also where the hold throws
  const auto begun = std::chrono::steady_clock::now();
  const auto held = vmm_->StopAndHold();
  if (!held.ok()) {
    const std::optional<bool> left_stopped = vmm_->LeftStopped();
    stopped_ = left_stopped.has_value();
    was_running_ = left_stopped.value_or(was_running_);
    return Prefixed("source", held.status());
  }
  was_running_ = held->was_running;
  if (held->stopped.us != 0) {
    status_.Update([&](Progress& progress) { progress.stopped_at_us = held->stopped.us; });
    absl::MutexLock lock(&mutex_);
    stopped_at_ =
        SteadyTimeOf(held->stopped.us, NowUs(), begun, std::chrono::steady_clock::now());
  }
  FreezeMemory();
  parts_.faults.Reach("held");
  const auto transfer = destination_->BeginLoad(session_text_);
  const auto state = vmm_->TakeDeviceState();
  if (!state.ok()) return Prefixed("source", state.status());
  status_.Apply(SessionEvent::kStateTaken);
  parts_.faults.Reach("taken");
  // It is laid while the destination loads. Behind it a guest that runs again would end its VMM.
  if (vmm_->AwaitStart(milliseconds(0)).ok()) return StartedByAnother();
  if (auto fencing = BeginFence(); !fencing.ok()) return fencing;
  const absl::Status loaded = transfer->Finish(was_running_, state->bytes);
  if (!loaded.ok()) return Prefixed("destination", loaded);
  if (auto fenced = AwaitFence(); !fenced.ok()) return fenced;
  if (auto held_still = LookForStart(); !held_still.ok()) return held_still;
  parts_.faults.Reach("loaded");
  return absl::OkStatus();
}

absl::Status SourceSession::RecordHandOver() {
  SetWatched(vmm_);
  const absl::Status recorded = Write(OwnershipMark::kHandedOver);
  if (!recorded.ok()) return recorded;
  status_.Apply(SessionEvent::kHandOver);
  parts_.faults.Reach("recorded");
  return absl::OkStatus();
}

void SourceSession::NoteResumed(const Resumed& resumed) {
  NoteRanThere();
  const auto now = std::chrono::steady_clock::now();
  std::optional<double> downtime_ms;
  {
    absl::MutexLock lock(&mutex_);
    if (stopped_at_.has_value() && resumed.since.has_value()) {
      downtime_ms = DowntimeMs(*stopped_at_, now, *resumed.since);
    }
  }
  status_.Update([&](Progress& progress) {
    if (resumed.at_us != 0) progress.resumed_at_us = resumed.at_us;
    if (!progress.downtime_ms.has_value()) progress.downtime_ms = downtime_ms;
  });
}

absl::StatusOr<std::optional<double>> SourceSession::FinishHandOver() {
  absl::StatusOr<Resumed> resumed = absl::UnknownError("");
  for (int attempt = 0;
       attempt < (absl::IsInternal(resumed.status()) ? kAnsweredTries : kHandOverTries); ++attempt) {
    resumed = destination_->HandOver(session_text_);
    if (resumed.ok() || resumed.status().code() == absl::StatusCode::kAborted ||
        IsDeadNotRecorded(resumed.status()) ||
        resumed.status().code() == absl::StatusCode::kNotFound ||
        resumed.status().code() == absl::StatusCode::kDataLoss) {
      break;
    }
    spdlog::warn("session {}, hand-over not confirmed: {}", session_text_,
                 resumed.status().ToString());
    if (status_.WaitForChange(SessionState::kHandedOver, parts_.hand_over_retry)) break;
  }
  parts_.faults.Reach("handed-over");
  // "Never" is on its disk, or cannot be and its VMM is dead.
  if (absl::IsAborted(resumed.status()) || IsDeadNotRecorded(resumed.status())) {
    return RollBack(resumed.status(), /*must_ask_destination=*/true);
  }
  if (resumed.status().code() == absl::StatusCode::kDataLoss) {
    parts_.page_server.Remove(session_);
    SetWatched(nullptr);
    vmm_.reset();
    status_.Apply(SessionEvent::kVmLost, std::string(resumed.status().message()));
    return resumed.status();
  }
  if (!resumed.ok() && status_.state() == SessionState::kHandedOver) {
    return absl::InternalError(absl::StrCat(
        "VM ", options_.vm, " was handed over to ", options_.destination,
        ", which has not confirmed that it runs: ", std::string(resumed.status().message()),
        "; it stays stopped here and asks on; when the destination can be reached it takes over by "
        "itself; `postcopyctl recover ",
        options_.vm, "` tells more"));
  }
  if (resumed.ok()) NoteResumed(*resumed);
  status_.Apply(SessionEvent::kResumed);
  return status_.Snapshot().downtime_ms;
}

bool SourceSession::CancelRequested() {
  absl::MutexLock lock(&mutex_);
  return cancel_requested_;
}

absl::Status SourceSession::Cancel() {
  const auto refusal = [this](SessionState state) {
    if (IsAfterSwitch(state)) {
      return absl::FailedPreconditionError(absl::StrCat(
          "cancel ", options_.vm, ": too late, ", options_.destination,
          " owns it since the switch; relocate it back from there"));
    }
    return absl::FailedPreconditionError(
        absl::StrCat("cancel ", options_.vm, ": the session is ", std::string(Name(state))));
  };
  {
    absl::MutexLock lock(&mutex_);
    cancel_requested_ = true;
  }
  spdlog::info("session {}, vm {}, cancel asked for", session_text_, options_.vm);
  Turn::Holder turn(turn_);
  const SessionState state = status_.state();
  if (state == SessionState::kCancelled) return absl::OkStatus();
  if (state != SessionState::kPrepared) return refusal(state);
  const absl::Status rolled_back =
      RollBack(absl::CancelledError("cancelled by an operator"), /*must_ask_destination=*/false);
  return rolled_back.code() == absl::StatusCode::kCancelled ? absl::OkStatus() : rolled_back;
}

absl::Status SourceSession::Hurry() {
  const SessionState state = status_.state();
  if (state != SessionState::kHandedOver && state != SessionState::kRunning) {
    return NothingArrives("hurry", options_.vm, state);
  }
  return destination_->Hurry(session_text_);
}

OwnershipRecord SourceSession::RecordOf(OwnershipMark mark) const {
  OwnershipRecord record;
  record.session = session_;
  record.role = SessionRole::kSource;
  record.vm = options_.vm;
  record.peer = options_.destination;
  record.mark = mark;
  record.run = was_running_;
  record.ran_there = may_have_run_there_;
  record.keep_source = options_.keep_source;
  record.vmm = vmm_identity_;
  record.memory = memory_;
  record.allocated_bytes = allocated_bytes_;
  record.emptied_at_end = emptied_at_end_;
  return record;
}

absl::Status SourceSession::Write(OwnershipMark mark) { return Write(RecordOf(mark)); }

absl::Status SourceSession::WriteToBeResumed() {
  OwnershipRecord record = RecordOf(OwnershipMark::kRolledBack);
  record.to_resume = true;
  return Write(record);
}

absl::Status SourceSession::Write(const OwnershipRecord& record) {
  absl::MutexLock lock(&record_mutex_);
  const absl::Status written = parts_.store.Write(record);
  if (written.ok()) recorded_ = record.mark;
  return written;
}

void SourceSession::RecordThatItRanThere() {
  absl::MutexLock lock(&record_mutex_);
  if (recorded_ != OwnershipMark::kHandedOver) return;
  const absl::Status written = parts_.store.Write(RecordOf(OwnershipMark::kHandedOver));
  if (!written.ok()) spdlog::warn("session {}, {}", session_text_, written.ToString());
}

void SourceSession::NoteRanThere() {
  {
    absl::MutexLock lock(&mutex_);  // Decide() looks at it
    if (may_have_run_there_.exchange(true)) return;
  }
  RecordThatItRanThere();
}

bool SourceSession::Decide(Decision decision) {
  absl::MutexLock lock(&mutex_);
  if (decision_.has_value()) return *decision_ == decision;
  if (decision == Decision::kTakenBack && may_have_run_there_) return false;
  decision_ = decision;
  return true;
}

Progress SourceSession::Snapshot() {
  Progress mine = status_.Snapshot();
  if (mine.state != SessionState::kHandedOver && mine.state != SessionState::kRunning) return mine;
  auto theirs = destination_->Figures(session_text_);
  if (!theirs.ok()) {
    if (mine.error.empty()) {
      mine.error = absl::StrCat("no figures from the destination: ",
                                std::string(theirs.status().message()));
    }
    return mine;
  }
  if (theirs->state == SessionState::kFailed) {
    EndAsThere(theirs->error);
    mine.state = status_.state();
  }
  if (theirs->state == SessionState::kRunning) NoteRanThere();
  // Where the answer to the hand-over was lost.
  if (theirs->state == SessionState::kRunning && !mine.downtime_ms.has_value() &&
      theirs->after_switch_ms.value_or(-1) >= 0 && *theirs->after_switch_ms < kLongestMs) {
    NoteResumed({0, std::chrono::round<std::chrono::microseconds>(
                        std::chrono::duration<double, std::milli>(*theirs->after_switch_ms))});
    mine.downtime_ms = status_.Snapshot().downtime_ms;
  }
  Progress merged = *theirs;
  if (merged.error.empty()) {
    absl::MutexLock lock(&mutex_);
    merged.error = notice_;
  }
  merged.vm = mine.vm;
  merged.role = mine.role;
  merged.state = mine.state;
  merged.peer = mine.peer;
  merged.elapsed_ms = mine.elapsed_ms;
  merged.stopped_at_us = mine.stopped_at_us;
  merged.downtime_ms = mine.downtime_ms;
  return merged;
}

SourceSession::~SourceSession() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (watcher_.has_value()) watcher_->Join();
  attendant_.Join();
  parts_.page_server.Remove(session_);
}

}  // namespace postcopy
