#include "relocation/destination_session.h"

#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"
#include "relocation/fit.h"
#include "relocation/memory_match.h"
#include "server/status_of.h"
#include "transport/tcp_transport.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kArmTimeout{60'000};
constexpr milliseconds kAskSourceEvery{1'000};
constexpr milliseconds kRepeatArrivedEvery{500};
constexpr milliseconds kLookEvery{200};
// Steps of allocation, so that a large guest does not hold the file system for long.
constexpr uint64_t kAllocateStepBytes = 64 << 20;

Progress InitialProgress(const Offer& offer) {
  Progress progress;
  progress.vm = offer.vm;
  progress.session = offer.session;
  progress.peer = offer.control_address;
  progress.role = SessionRole::kDestination;
  for (const OfferedRegion& region : offer.ram) progress.ram_bytes += region.region.size_bytes;
  return progress;
}

}  // namespace

DestinationSession::DestinationSession(const DaemonParts& parts, const Offer& offer,
                                       VmRecord record, SessionId session)
    : parts_(parts),
      session_(session),
      session_text_(offer.session),
      source_address_(offer.control_address),
      record_(std::move(record)),
      status_(InitialProgress(offer)) {}

absl::StatusOr<std::shared_ptr<DestinationSession>> DestinationSession::Prepare(
    const DaemonParts& parts, const Offer& offer) {
  const auto id = SessionId::Parse(offer.session);
  if (!id.has_value()) return absl::InvalidArgumentError("offer: malformed session id");
  auto record = parts.registry.Find(offer.vm);
  if (!record.ok()) return absl::FailedPreconditionError(record.status().message());
  if (!record->problem.empty()) {
    return absl::FailedPreconditionError(absl::StrCat("it runs unhooked: ", record->problem));
  }
  std::optional<SessionId> lost;
  if (record->arming.has_value()) lost = record->arming->session_id;
  record->arming.reset();
  std::shared_ptr<DestinationSession> session(
      new DestinationSession(parts, offer, std::move(*record), *id));

  auto vmm = parts.connect_vmm(session->record_.qmp_path);
  if (!vmm.ok()) return vmm.status();
  session->vmm_ = std::move(*vmm);
  const auto description = session->vmm_->Describe();
  if (!description.ok()) return description.status();
  absl::Status status = CheckDestination(*description, session->record_.pid());
  if (!status.ok()) return status;
  const auto matched = MatchMemory(session->record_, *description, SessionRole::kDestination);
  if (!matched.ok()) return matched.status();
  status = CheckFit(offer, *description, matched->layout);
  if (!status.ok()) return status;

  if (lost.has_value()) {
    // Armed for a session that this daemon no longer has. The VMM still waits for a machine, so
    // nothing has come in that session that anyone needs.
    status = parts.registry.Release(offer.vm, *lost);
    if (!status.ok()) return status;
  }

  // The source's order of regions counts.
  std::vector<size_t> blocks;
  for (const OfferedRegion& offered : offer.ram) {
    const auto& regions = matched->layout.regions;
    const auto twin = std::find(regions.begin(), regions.end(), offered.region);
    blocks.push_back(matched->blocks[static_cast<size_t>(twin - regions.begin())]);
  }
  session->record_.blocks.clear();  // arming gives them anew
  status = NothingDone(session->Write(OwnershipMark::kOffered));
  if (status.ok()) status = session->Arm(offer, blocks);
  if (status.ok()) status = session->AllocateData(offer);
  if (status.ok()) status = session->OpenLanes(offer);
  if (status.ok()) status = session->vmm_->PrepareDestination();
  if (!status.ok()) {
    session->Disarm();
    parts.store.Remove(*id);
    return status;
  }
  session->attendant_ = std::thread([raw = session.get()] { raw->Attend(); });
  return session;
}

absl::Status DestinationSession::Arm(const Offer& offer, const std::vector<size_t>& blocks) {
  auto waiter = Waiter::Create();
  if (!waiter.ok()) return StatusOf(waiter.error());
  auto armed = parts_.registry.Arm(offer.vm, session_, kArmTimeout, blocks);
  if (!armed.ok()) return armed.status();
  blocks_ = std::move(armed->blocks);
  device_ = std::make_unique<UserfaultDevice>(std::move(armed->userfault), std::move(*waiter));
  for (const VmBlock& block : blocks_) {
    const auto region = MakeMappedRegion(
        block.address, block.size_bytes,
        block.kind == wire::BlockKind::kSharedFile ? block.ram_file.get() : -1, block.file_offset);
    if (!region.ok()) return StatusOf(region.error());
    regions_.push_back(*region);
  }
  return absl::OkStatus();
}

absl::Status DestinationSession::AllocateData(const Offer& offer) {
  for (size_t i = 0; i < regions_.size(); ++i) {
    const MappedRegion& region = regions_[i];
    if (!region.file_backed()) continue;
    for (const PageRange& data : offer.ram[i].data) {
      for (uint64_t done = 0; done < data.size_bytes(); done += kAllocateStepBytes) {
        const auto allocated = AllocateRamFile(
            region.ram_file, region.file_offset + data.first.offset_bytes() + done,
            std::min(kAllocateStepBytes, data.size_bytes() - done));
        if (!allocated.ok()) return StatusOf(allocated.error());
      }
    }
  }
  return absl::OkStatus();
}

absl::Status DestinationSession::OpenLanes(const Offer& offer) {
  TcpTransportOptions options;
  options.addresses = offer.data_addresses;
  options.session = session_;
  options.bulk_lanes = parts_.bulk_lanes;
  auto transport = TcpTransport::Connect(options);
  if (!transport.ok()) return StatusOf(transport.error());
  const MemoryLayout& layout = (*transport)->layout();
  for (size_t i = 0; i < regions_.size(); ++i) {
    if (i >= layout.regions.size() || layout.regions[i] != offer.ram[i].region) {
      return absl::FailedPreconditionError("the page server describes another memory than the offer");
    }
  }
  layout_ = layout;
  for (const MappedRegion& region : regions_) page_bytes_.push_back(region.page_bytes);
  if (parts_.traces.has_value()) trace_ = std::make_unique<FaultTrace>();
  engine_ = std::make_unique<Engine>(std::move(*transport), *device_, regions_, trace_.get());
  for (uint32_t i = 0; i < regions_.size(); ++i) {
    if (!regions_[i].file_backed()) continue;
    for (const PageRange& data : offer.ram[i].data) engine_->MarkAllocated({i}, data);
  }
  return absl::OkStatus();
}

absl::Status DestinationSession::OpenIncoming() {
  Turn::Holder turn(turn_);
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

absl::Status DestinationSession::Load(bool run, std::string_view device_state) {
  Turn::Holder turn(turn_);
  {
    absl::MutexLock lock(&mutex_);
    if (aborting_) return absl::AbortedError("the session was given up");
  }
  if (status_.state() != SessionState::kStopping) {
    return absl::FailedPreconditionError(
        absl::StrCat("the session is ", std::string(Name(status_.state()))));
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
  status_.Apply(SessionEvent::kStateTaken);
  parts_.faults.Reach("state-loaded");
  return absl::OkStatus();
}

absl::Status DestinationSession::TakeOwnership() {
  {
    absl::MutexLock lock(&mutex_);
    if (aborting_ || status_.state() == SessionState::kRolledBack) {
      return absl::AbortedError("this host has recorded that it never runs this VM");
    }
    if (status_.state() != SessionState::kStopped) {
      return absl::FailedPreconditionError(
          absl::StrCat("hand-over: the session is ", std::string(Name(status_.state()))));
    }
    owner_ = true;
  }
  if (!record_.process.HasEnded()) {
    const absl::Status recorded = Write(OwnershipMark::kOwner);
    if (!recorded.ok()) return absl::InternalError(recorded.message());
    parts_.faults.Reach("owner-recorded");
  }
  if (!record_.process.HasEnded()) {
    status_.Apply(SessionEvent::kHandOver);
    return absl::OkStatus();
  }
  // Nobody has told it to run, so it never ran: "never" may replace "owner".
  {
    absl::MutexLock lock(&mutex_);
    owner_ = false;
    aborting_ = true;
  }
  const absl::Status never = EndAsNever("its VMM had ended before the guest was started");
  return never.ok() ? absl::AbortedError(
                          "the destination's VMM had ended before the guest was started")
                    : never;
}

absl::StatusOr<int64_t> DestinationSession::HandOver() {
  Turn::Holder turn(turn_);
  const Progress now = status_.Snapshot();
  if (now.state == SessionState::kRunning || now.state == SessionState::kCommitted) {
    return now.resumed_at_us;
  }
  if (now.state == SessionState::kFailed) return absl::DataLossError(now.error);
  if (now.state != SessionState::kHandedOver) {
    const absl::Status taken = TakeOwnership();
    if (!taken.ok()) return taken;
  }
  bool run;
  {
    absl::MutexLock lock(&mutex_);
    run = run_;
  }
  int64_t resumed_at_us = 0;
  if (run) {
    const auto started = vmm_->StartGuest();
    if (!started.ok()) {
      const std::string error = absl::StrCat(
          "the VM has ended as in a crash: this host owns it and its VMM (process ", record_.pid(),
          ") did not start it: ", std::string(started.status().message()));
      if (record_.process.HasEnded()) {
        engine_->Stop();
        LetGoOfVmm();
        status_.Apply(SessionEvent::kVmLost, error);
        return absl::DataLossError(error);
      }
      status_.Update([&](Progress& progress) { progress.error = error; });
      return absl::InternalError(error);
    }
    resumed_at_us = started->us != 0 ? started->us : NowUs();
  }
  if (run && trace_ != nullptr) {
    trace_->NoteResume(std::chrono::steady_clock::now() -
                       std::chrono::microseconds(NowUs() - resumed_at_us));
  }
  status_.Update([&](Progress& progress) { progress.resumed_at_us = resumed_at_us; });
  status_.Apply(SessionEvent::kResumed);
  if (!parts_.faults.bulk_delay().has_value()) engine_->StartBulk();
  parts_.faults.Reach("resumed");
  return resumed_at_us;
}

absl::Status DestinationSession::Abort(const std::string& reason) {
  bool used_up;
  {
    absl::MutexLock lock(&mutex_);
    if (owner_) {
      return absl::FailedPreconditionError("this host owns the VM: it cannot give it back");
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
  return EndAsNever(reason);
}

absl::Status DestinationSession::Hurry() {
  const SessionState state = status_.state();
  if (state != SessionState::kHandedOver && state != SessionState::kRunning) {
    return NothingArrives(record_.name, state);
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
  // The memory belongs to whoever has it mapped: nothing here keeps it.
  regions_.clear();
  blocks_.clear();
  vmm_.reset();
  absl::MutexLock lock(&mutex_);
  opened_.reset();
}

absl::Status DestinationSession::Write(OwnershipMark mark) {
  bool run;
  {
    absl::MutexLock lock(&mutex_);
    run = run_;
  }
  return parts_.store.Write({session_, record_.name, source_address_, mark, run});
}

bool DestinationSession::SleepUnlessStopped(milliseconds time) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(time));
}

void DestinationSession::Attend() {
  AwaitHandOver();
  if (status_.state() == SessionState::kRunning) AwaitMemory();
  SaveTrace();
}

void DestinationSession::AwaitHandOver() {
  auto source = parts_.peers.ConnectSource(source_address_);
  for (;;) {
    const SessionState seen = status_.state();
    if (seen == SessionState::kRunning || IsFinal(seen)) return;
    bool changed = false;
    for (auto waited = milliseconds::zero(); waited < kAskSourceEvery && !changed;
         waited += kLookEvery) {
      changed = Watch(seen, kLookEvery);
      if (!SleepUnlessStopped(milliseconds::zero())) return;
    }
    if (changed) continue;
    if (status_.state() == SessionState::kHandedOver) {
      TryHandOver();  // its VMM has not started it yet
    } else if (record_.process.HasEnded()) {
      GiveUp("its VMM has ended");
    } else {
      const auto recorded = source->Query(session_text_);
      // Without the source's word it stays as it is, and never runs.
      if (recorded.ok()) Follow(*recorded);
    }
  }
}

bool DestinationSession::Watch(SessionState seen, milliseconds time) {
  std::shared_ptr<VmmDriver> vmm;
  {
    absl::MutexLock lock(&mutex_);
    if (!owner_) vmm = opened_;
  }
  if (vmm == nullptr) return status_.WaitForChange(seen, time);
  const absl::Status started = vmm->AwaitStart(time);
  // Its connection has ended, with its process in all likelihood.
  if (absl::IsUnavailable(started)) return status_.WaitForChange(seen, time);
  if (started.ok()) {
    bool ours;
    {
      absl::MutexLock lock(&mutex_);
      ours = owner_;
    }
    // Whoever started it did not ask whether the source had let it go.
    if (!ours) GiveUp("somebody started the guest here before this host was its owner");
  }
  return status_.state() != seen;
}

void DestinationSession::Follow(RecordedOutcome recorded) {
  switch (recorded) {
    case RecordedOutcome::kHandedOver: return TryHandOver();
    case RecordedOutcome::kNone: return GiveUp("the source no longer knows the session");
    case RecordedOutcome::kPrepared:
    case RecordedOutcome::kNever:
    case RecordedOutcome::kOwner:
    case RecordedOutcome::kCommitted:
    case RecordedOutcome::kUnreadable: return;
  }
}

void DestinationSession::TryHandOver() {
  const auto taken = HandOver();
  if (!taken.ok()) spdlog::warn("session {}, {}", session_text_, taken.status().ToString());
}

void DestinationSession::GiveUp(const std::string& reason) {
  const absl::Status given_up = Abort(reason);
  if (!given_up.ok()) spdlog::warn("session {}, {}", session_text_, given_up.ToString());
}

void DestinationSession::AwaitMemory() {
  const auto resumed = std::chrono::steady_clock::now();
  std::optional<std::chrono::seconds> bulk_delay = parts_.faults.bulk_delay();
  for (;;) {
    if (bulk_delay.has_value() && std::chrono::steady_clock::now() - resumed >= *bulk_delay) {
      engine_->StartBulk();
      bulk_delay.reset();
    }
    const Engine::Wait waited = engine_->WaitComplete(kLookEvery);
    if (waited == Engine::Wait::kComplete) return Commit();
    if (waited == Engine::Wait::kStopped) return;
    if (record_.process.HasEnded()) {
      engine_->Stop();
      {
        Turn::Holder turn(turn_);
        LetGoOfVmm();
      }
      status_.Apply(SessionEvent::kVmLost,
                    absl::StrCat("the VM has ended as in a crash: its VMM (process ", record_.pid(),
                                 ") ended while its memory was arriving"));
      return;
    }
    NoteWhetherMemoryArrives();
    if (waited == Engine::Wait::kFailed && !SleepUnlessStopped(kLookEvery)) return;
  }
}

void DestinationSession::NoteWhetherMemoryArrives() {
  std::string error;
  if (const auto failure = engine_->failure()) {
    error = absl::StrCat("memory cannot arrive, the VM waits: ", failure->message);
  } else if (const auto interruption = engine_->interruption()) {
    error = absl::StrCat("the source cannot be reached, the VM waits where its memory is missing: ",
                         interruption->cause.message);
  }
  const std::string before = std::exchange(arrival_error_, error);
  if (before == error) return;
  status_.Update([&](Progress& progress) { progress.error = error; });
  if (before.empty()) {
    spdlog::error("session {}, vm {}, {}", session_text_, record_.name, error);
  } else if (error.empty()) {
    spdlog::info("session {}, vm {}, the source is reached again", session_text_, record_.name);
  }
}

void DestinationSession::Commit() {
  const int64_t committed_at_us = NowUs();
  const auto finished = engine_->Finish();
  if (!finished.ok() && !record_.process.HasEnded()) {
    spdlog::error("session {}, {}", session_text_, finished.error().message);
  }
  const absl::Status released = parts_.registry.Release(record_.name, session_);
  if (!released.ok()) spdlog::warn("vm {}, release: {}", record_.name, released.ToString());
  status_.Update([&](Progress& progress) {
    progress.committed_at_us = committed_at_us;
    progress.error.clear();
    if (progress.resumed_at_us != 0) {
      progress.after_switch_ms =
          static_cast<double>(committed_at_us - progress.resumed_at_us) / 1000.0;
    }
  });
  const absl::Status recorded = Write(OwnershipMark::kCommitted);
  if (!recorded.ok()) spdlog::error("session {}, {}", session_text_, recorded.ToString());
  // The monitor is free for others again.
  {
    Turn::Holder turn(turn_);
    LetGoOfVmm();
  }
  auto source = parts_.peers.ConnectSource(source_address_);
  Progress last = Snapshot();
  last.state = SessionState::kCommitted;
  while (!source->Arrived(session_text_, last).ok()) {
    if (!SleepUnlessStopped(kRepeatArrivedEvery)) return;
  }
  status_.Apply(SessionEvent::kAllPresent);
}

void DestinationSession::SaveTrace() {
  if (trace_ == nullptr) return;
  engine_->Stop();
  if (trace_->started() == TimePoint{}) return;  // the VM has stayed where it was
  const absl::Status written =
      parts_.traces->Write(record_.name, session_, layout_, page_bytes_, *trace_);
  if (!written.ok()) spdlog::warn("vm {}, {}", record_.name, written.ToString());
  trace_.reset();
}

Progress DestinationSession::Snapshot() {
  Progress progress = status_.Snapshot();
  if (engine_ == nullptr) return progress;
  const EngineFigures figures = engine_->Figures();
  progress.data_bytes = figures.data_bytes;
  progress.present_bytes = figures.present_bytes;
  progress.faults = figures.faults.faults;
  progress.fault_p50_us = figures.faults.p50_us;
  progress.fault_p99_us = figures.faults.p99_us;
  progress.fault_p999_us = figures.faults.p999_us;
  progress.fault_max_us = figures.faults.max_us;
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
  if (attendant_.joinable()) attendant_.join();
}

}  // namespace postcopy
