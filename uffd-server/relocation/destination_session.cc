#include "relocation/destination_session.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"
#include "relocation/downtime.h"
#include "relocation/fit.h"
#include "server/status_of.h"

namespace postcopy {

DestinationSession::DestinationSession(const DaemonParts& parts, Progress initial, VmRecord record,
                                       SessionId session)
    : parts_(parts),
      session_(session),
      session_text_(initial.session),
      source_address_(initial.peer),
      record_(std::move(record)),
      vmm_identity_(IdentityOf(record_)),
      status_(std::move(initial)) {}

absl::Status DestinationSession::OpenIncoming() {
  Turn::Holder turn(turn_);
  // The source's guest still runs, and this VMM can still take another machine.
  const absl::Status unchanged = CheckUnchanged(*vmm_, print_);
  if (!unchanged.ok()) return unchanged;
  {
    absl::MutexLock lock(&mutex_);
    if (aborting_) return absl::AbortedError("the session was given up");
    used_up_ = true;
  }
  if (!status_.Apply(SessionEvent::kSwitchBegins)) {
    return absl::FailedPreconditionError(
        absl::StrCat("the session is ", std::string(Name(status_.state()))));
  }
  const auto started = engine_->Start();
  if (!started.ok()) return StatusOf(started.error());
  parts_.faults.Reach("incoming");
  const absl::Status opened = vmm_->OpenIncoming();
  if (opened.ok()) {
    absl::MutexLock lock(&mutex_);
    opened_ = vmm_;
  }
  return opened;
}

absl::Status DestinationSession::CheckLoading() {
  {
    absl::MutexLock lock(&mutex_);
    if (aborting_) return absl::AbortedError("the session was given up");
  }
  if (status_.state() == SessionState::kStopping) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("the session is ", std::string(Name(status_.state()))));
}

absl::Status DestinationSession::SourceStopped() {
  Turn::Holder turn(turn_);
  const absl::Status loading = CheckLoading();
  if (!loading.ok()) return loading;
  const absl::Status stays_stopped = vmm_->StayStopped();
  if (!stays_stopped.ok()) return stays_stopped;
  if (IsWayLong()) engine_->AskForMap();
  return absl::OkStatus();
}

absl::Status DestinationSession::Load(bool run, std::string_view device_state) {
  Turn::Holder turn(turn_);
  const absl::Status loading = CheckLoading();
  if (!loading.ok()) return loading;
  if (IsWayLong()) {
    // It is a while since SourceStopped().
    const absl::Status stays_stopped = vmm_->StayStopped();
    if (!stays_stopped.ok()) return stays_stopped;
    // Not earlier, where it would delay the state; over a short way it would only delay the load.
    if (!parts_.faults.bulk_delay().has_value()) engine_->StartBulk();
  }
  // One that runs has its disks activated by the start: then no lock is held if it is not handed over.
  if (!run) {
    const absl::Status disks = vmm_->ActivateDisksAtLoad();
    if (!disks.ok()) return disks;
  }
  const absl::Status loaded = vmm_->LoadDeviceState(device_state);
  if (!loaded.ok()) {
    // Not left to the source, which may be out of reach: a VMM that somebody told to go on while it
    // loaded runs now.
    {
      absl::MutexLock lock(&mutex_);
      aborting_ = true;
    }
    absl::Status never = KillVmm(record_);
    if (never.ok()) {
      never = EndAsNever(std::string(loaded.message()));
    } else {
      Disarm();
    }
    if (!never.ok()) spdlog::error("session {}, {}", session_text_, never.ToString());
    return loaded;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (aborting_) return absl::AbortedError("the session was given up");
    run_ = run;
  }
  // For a daemon that takes the session up; the record says so already of a guest that is to run.
  if (!run) {
    const absl::Status recorded = Write(OwnershipMark::kOffered);
    if (!recorded.ok()) return recorded;
  }
  may_give_back_ = true;
  status_.Apply(SessionEvent::kStateTaken);
  parts_.faults.Reach("state-loaded");
  return absl::OkStatus();
}

absl::Status DestinationSession::TakeOwnership() {
  if (taken_up_ && vmm_ == nullptr && !record_.process.HasEnded()) {
    const absl::Status watched = WatchLoaded();
    if (!watched.ok()) return absl::InternalError(watched.message());
  }
  {
    absl::MutexLock lock(&mutex_);
    if (aborting_ || status_.state() == SessionState::kRolledBack) {
      return absl::AbortedError("the destination has recorded that it never runs this VM");
    }
    if (status_.state() != SessionState::kStopped) {
      return absl::FailedPreconditionError(
          absl::StrCat("hand-over: the session is ", std::string(Name(status_.state()))));
    }
    owner_ = true;
  }
  const bool owner_recorded = !record_.process.HasEnded();
  if (owner_recorded) {
    const absl::Status recorded = Write(OwnershipMark::kOwner);
    if (!recorded.ok()) {
      return GiveBack(absl::StrCat("the destination cannot record that it owns the VM: ",
                                   std::string(recorded.message())));
    }
    parts_.faults.Reach("owner-recorded");
  }
  if (!record_.process.HasEnded()) {
    status_.Apply(SessionEvent::kHandOver);
    return absl::OkStatus();
  }
  // This daemon has not told it to run. Where no other client has either, "never" may replace "owner".
  if (owner_recorded && (vmm_ == nullptr || vmm_->MayHaveRun())) {
    const std::string error =
        absl::StrCat("the VM has ended as in a crash: the destination's VMM (process ", record_.pid(),
                     ") ended before its daemon started the guest, and somebody else may have");
    engine_->Stop();
    LetGoOfVmm();
    status_.Apply(SessionEvent::kVmLost, error);
    return absl::DataLossError(error);
  }
  return GiveBack("the destination's VMM had ended before the guest was started");
}

Resumed DestinationSession::WhenResumed() const {
  return {status_.Snapshot().resumed_at_us.value_or(0), status_.SinceResume()};
}

absl::StatusOr<Resumed> DestinationSession::HandOver() {
  Turn::Holder turn(turn_);
  const Progress now = status_.Snapshot();
  if (now.state == SessionState::kRunning || now.state == SessionState::kCommitted) {
    return WhenResumed();
  }
  if (now.state == SessionState::kFailed) {
    // One that has lost memory runs on.
    const auto recorded = parts_.store.Read(session_, SessionRole::kDestination);
    const bool runs_on = recorded.ok() && recorded->mark == OwnershipMark::kIncomplete;
    if (runs_on) return WhenResumed();
    return absl::DataLossError(now.error);
  }
  if (now.state == SessionState::kRolledBack) {
    return absl::AbortedError(
        absl::StrCat("the destination has recorded that it never runs this VM: ", now.error));
  }
  if (IsGivenUp()) {
    return GiveBack("the destination has given it up");
  }
  if (now.state != SessionState::kHandedOver) {
    const absl::Status taken = TakeOwnership();
    if (!taken.ok()) return taken;
  }
  bool run;
  {
    absl::MutexLock lock(&mutex_);
    run = run_;
  }
  // Of a session that was taken up the guest may run already, or be paused by its operator since.
  int64_t resumed_at_us = keepsake_->resumed_at_us();
  // Of an earlier daemon's time: as far as this host's wall clock tells.
  auto resumed = std::chrono::steady_clock::now() -
                 std::chrono::microseconds(std::max<int64_t>(NowUs() - resumed_at_us, 0));
  if (run && resumed_at_us == 0) {
    const auto begun = std::chrono::steady_clock::now();
    const auto started = StartGuest();
    if (!started.ok()) {
      const std::string error = absl::StrCat(
          "the VM has ended as in a crash: the destination owns it and its VMM (process ", record_.pid(),
          ") did not start it: ", std::string(started.status().message()));
      if (record_.process.HasEnded()) {
        engine_->Stop();
        LetGoOfVmm();
        status_.Apply(SessionEvent::kVmLost, error);
        return absl::DataLossError(error);
      }
      return NotStarted(started.status());
    }
    refused_since_.reset();
    {
      absl::MutexLock lock(&mutex_);
      refused_ = false;
    }
    resumed_at_us = started->us != 0 ? started->us : NowUs();
    resumed = SteadyTimeOf(resumed_at_us, NowUs(), begun, std::chrono::steady_clock::now());
    keepsake_->NoteResumed(resumed_at_us);
  }
  if (run && trace_ != nullptr) trace_->NoteResume(resumed);
  if (run) status_.NoteResumed(resumed_at_us, resumed);
  status_.Update([](Progress& progress) { progress.error.clear(); });
  status_.Apply(SessionEvent::kResumed);
  engine_->GuestRuns();
  if (!taken_up_ && !parts_.faults.bulk_delay().has_value()) engine_->StartBulk();
  parts_.faults.Reach("resumed");
  return WhenResumed();
}

absl::StatusOr<EventTime> DestinationSession::StartGuest() {
  if (vmm_ == nullptr) {
    auto vmm = parts_.connect_vmm(record_);
    if (!vmm.ok()) return vmm.status();
    UseVmm(*std::move(vmm));
  }
  const auto started = vmm_->StartGuest();
  // A monitor that fell silent while its VMM waited for memory is connected to anew.
  if (!started.ok() && !absl::IsFailedPrecondition(started.status()) && taken_up_) vmm_.reset();
  return started;
}

absl::Status DestinationSession::Abort(const std::string& reason) {
  bool used_up;
  {
    absl::MutexLock lock(&mutex_);
    if (owner_) {
      return absl::FailedPreconditionError("the destination owns the VM and cannot give it back");
    }
    aborting_ = true;
    used_up = used_up_;
  }
  // A load that waits for pages ends only with its VMM, so this comes before the turn.
  if (used_up) {
    const absl::Status ended = KillVmm(record_);
    if (!ended.ok()) return ended;
  }
  Turn::Holder turn(turn_);
  const absl::Status never = EndAsNever(reason);
  if (never.ok() || !used_up) return never;
  return DeadNotRecordedError(absl::StrCat("the destination's VMM is dead, and that cannot be recorded "
                                           "there: ",
                                           std::string(never.message())));
}

absl::Status DestinationSession::Hurry() {
  const SessionState state = status_.state();
  if (state != SessionState::kHandedOver && state != SessionState::kRunning) {
    return NothingArrives("hurry", record_.name, state);
  }
  engine_->Hurry();
  spdlog::info("session {}, vm {}, memory arrives without limit from now on", session_text_,
               record_.name);
  return absl::OkStatus();
}

absl::Status DestinationSession::EndAsNever(const std::string& reason) {
  const absl::Status recorded = Write(OwnershipMark::kNever);
  Disarm();
  // Last: a session that has ended may be taken down at any time.
  if (recorded.ok()) status_.Apply(SessionEvent::kRollBack, reason);
  return recorded;
}

void DestinationSession::Disarm() {
  const bool alive = !record_.process.HasEnded();
  if (engine_ != nullptr) engine_->Stop();
  if (alive) EmptyRamFiles();
  if (device_ != nullptr && alive) {
    for (const MappedRegion& region : regions_) {
      [[maybe_unused]] const auto unregistered = device_->Unregister(region);
    }
    device_.reset();  // the hook's duplicate is the last one then
    const absl::Status released = parts_.registry.Release(record_.name, session_);
    if (!released.ok()) spdlog::warn("vm {}, release: {}", record_.name, released.ToString());
    if (vmm_ != nullptr) {
      const absl::Status restored = vmm_->RestoreSettings();
      if (!restored.ok()) spdlog::warn("vm {}, {}", record_.name, restored.ToString());
    }
  }
  LetGoOfVmm();
}

void DestinationSession::EmptyRamFiles() {
  for (const VmBlock& block : blocks_) {
    if (block.kind != wire::BlockKind::kSharedFile) continue;
    const auto emptied =
        PunchRamFile(block.ram_file.get(), block.file_offset, block.size_bytes);
    if (!emptied.ok()) spdlog::warn("vm {}, {}", record_.name, emptied.error().message);
  }
}

void DestinationSession::LetGoOfVmm() {
  LetGoOfMemory();
  vmm_.reset();
}

void DestinationSession::LetGoOfMemory() {
  // The memory belongs to whoever has it mapped: nothing here keeps it, nor what would report its faults.
  device_.reset();
  regions_.clear();
  blocks_.clear();
  absl::MutexLock lock(&mutex_);
  opened_.reset();
}

OwnershipRecord DestinationSession::RecordOf(OwnershipMark mark) {
  bool run;
  {
    absl::MutexLock lock(&mutex_);
    run = run_;
  }
  return {session_, SessionRole::kDestination, record_.name,          source_address_, mark, run,
          /*keep_source=*/false, vmm_identity_};
}

absl::Status DestinationSession::Write(OwnershipMark mark) {
  return parts_.store.Write(RecordOf(mark));
}

Progress DestinationSession::Snapshot() {
  Progress progress = status_.Snapshot();
  if (engine_ == nullptr) return progress;
  const EngineFigures figures = engine_->Figures();
  if (figures.data_bytes != 0 || progress.committed_at_us.has_value()) {
    progress.data_bytes = figures.data_bytes;
    progress.present_bytes = figures.present_bytes;
  }
  progress.faults = figures.faults.faults;
  if (figures.faults.faults != 0) {
    progress.fault_p50_us = figures.faults.p50_us;
    progress.fault_p99_us = figures.faults.p99_us;
    progress.fault_p999_us = figures.faults.p999_us;
    progress.fault_max_us = figures.faults.max_us;
  }
  progress.demand_bytes = figures.demand_bytes;
  progress.bulk_bytes = figures.bulk_bytes;
  progress.zero_pages = figures.zero_pages;
  progress.discarded_pages = figures.discarded_pages;
  progress.interruptions = figures.interruptions;
  return progress;
}

DestinationSession::~DestinationSession() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  if (engine_ != nullptr) engine_->Stop();
  attendant_.Join();
}

}  // namespace postcopy
