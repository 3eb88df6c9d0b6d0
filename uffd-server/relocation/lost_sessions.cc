#include "relocation/lost_sessions.h"

#include <spdlog/spdlog.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

// After a daemon's start; a hook looks for it every 0.4 s.
constexpr std::chrono::seconds kHooksReturnWithin{5};

absl::Status BeingTakenUp() {
  return absl::UnavailableError("the session is being taken up after a restart");
}

// The other daemon takes other codes than these for a word about the VM.
absl::Status Unreadable(const absl::Status& status) {
  return absl::IsNotFound(status) ? status : absl::UnavailableError(status.message());
}

bool IsArmedFor(const VmRecord& vm, const OwnershipRecord& record) {
  return vm.arming.has_value() && vm.arming->session_id == record.session;
}

Progress LastFigures(const OwnershipRecord& record) {
  Progress figures;
  figures.vm = record.vm;
  figures.session = record.session.ToString();
  figures.peer = record.peer;
  figures.role = SessionRole::kDestination;
  return figures;
}

std::string Crashed(const OwnershipRecord& record) {
  return absl::StrCat("the VM has ended as in a crash: its VMM (process ", record.vmm_pid,
                      ") ended while its memory was arriving");
}

// Its process is gone for certain, whatever has registered under its name.
bool HasEnded(const OwnershipRecord& record) {
  if (record.vmm_pid == 0) return false;
  const auto process = Pidfd::Open(record.vmm_pid);
  return process.ok() ? process->HasEnded() : process.error().code == ErrorCode::kUnavailable;
}

}  // namespace

LostSessions::Settled LostSessions::Settle(const std::string& vm) {
  const std::vector<OwnershipRecord> records = parts_.store.ReadAll(vm);
  if (records.empty()) return {.done = true};
  const OwnershipRecord& last = records.back();
  switch (last.mark) {
    case OwnershipMark::kPrepared:
      return SettleSource(last);
    case OwnershipMark::kHandedOver:
      return SettleHandedOver(last);
    case OwnershipMark::kOffered:
      return SettleOffered(last);
    case OwnershipMark::kOwner:
      return SettleOwner(last);
    case OwnershipMark::kIncomplete:
      return SettleIncomplete(last);
    case OwnershipMark::kArrived:
      return {.done = SettleArrived(last)};
    case OwnershipMark::kNever:
      return {.done = SettleNever(last)};
    case OwnershipMark::kRolledBack:
    case OwnershipMark::kCommitted:
      return {.done = true};
  }
  return {.done = true};
}

std::vector<std::string> LostSessions::Untold() const {
  std::vector<std::string> vms;
  for (const OwnershipRecord& record : parts_.store.ReadAll()) {
    if (record.mark == OwnershipMark::kArrived) vms.push_back(record.vm);
  }
  return vms;
}

void LostSessions::SayUnsettled(const OwnershipRecord& record, const absl::Status& cause) {
  if (absl::IsFailedPrecondition(cause)) hopeless_.insert(record.session);
  std::string& said = said_[record.vm];
  const std::string text = cause.ToString();
  if (said == text) return;
  said = text;
  spdlog::warn("session {}, vm {}, lost, not taken up yet, cause {}", record.session.ToString(),
               record.vm, text);
}

LostSessions::Settled LostSessions::SettleSource(const OwnershipRecord& record) {
  // Nobody told the destination that it owns the VM, so it never runs it, and finds out by itself where
  // it cannot be asked. Where it can, its word counts: it would know of a record that this disk lost.
  const absl::Status aborted =
      parts_.peers.ConnectDestination(record.peer)
          ->Abort(record.session.ToString(), "the source's daemon has restarted", kQuickAbortTimeout);
  if (aborted.code() == absl::StatusCode::kFailedPrecondition) {
    // It was handed over after all, and this disk has lost it.
    OwnershipRecord handed_over = record;
    handed_over.mark = OwnershipMark::kHandedOver;
    if (!parts_.store.Write(handed_over).ok()) return {};
    return SettleHandedOver(handed_over);
  }
  const absl::Status resumed = ResumeSource(record);
  if (resumed.ok()) {
    spdlog::info("session {}, vm {}, lost before it was handed over: goes on here",
                 record.session.ToString(), record.vm);
    return {.done = true};
  }
  spdlog::warn("session {}, vm {}, lost, {}", record.session.ToString(), record.vm,
               resumed.ToString());
  return {.done = absl::IsNotFound(parts_.registry.Find(record.vm).status())};  // it has ended
}

absl::Status LostSessions::ResumeSource(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return vm.status();
  auto vmm = parts_.connect_vmm(vm->qmp_path);
  if (!vmm.ok()) return vmm.status();
  const auto description = (*vmm)->Describe();
  if (!description.ok()) return description.status();
  // Another process of that name, or one that was never stopped, is none of this session's business.
  if (description->state != GuestState::kRunning && description->state != GuestState::kPaused &&
      description->state != GuestState::kWaitsForIncoming) {
    const absl::Status resumed = (*vmm)->ResumeSource(record.run);
    if (!resumed.ok()) return resumed;
  }
  OwnershipRecord rolled_back = record;
  rolled_back.mark = OwnershipMark::kRolledBack;
  return parts_.store.Write(rolled_back);
}

LostSessions::Settled LostSessions::SettleHandedOver(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return {.done = absl::IsNotFound(vm.status())};  // it is settled when it registers
  auto destination = parts_.peers.ConnectDestination(record.peer);
  const std::string id = record.session.ToString();
  const auto recorded = destination->Query(id);
  if (recorded.ok() && *recorded == RecordedOutcome::kNever &&
      destination->Abort(id, "the source's daemon has restarted", kAbortTimeout).ok()) {
    const absl::Status resumed = ResumeSource(record);
    if (!resumed.ok()) SayUnsettled(record, resumed);
    return {.done = resumed.ok()};
  }
  auto session = SourceSession::TakeUp(parts_, record, *std::move(vm));
  if (!session.ok()) {
    SayUnsettled(record, session.status());
    return {};
  }
  spdlog::info("session {}, vm {}, taken up: its memory is served again to {}",
               record.session.ToString(), record.vm, record.peer);
  return {.done = true, .source = *std::move(session)};
}

LostSessions::Settled LostSessions::SettleOffered(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  // It has ended: HandOver() or Abort() says so.
  if (!vm.ok()) return {.done = absl::IsNotFound(vm.status())};
  const std::string session = record.session.ToString();
  const auto recorded = parts_.peers.ConnectSource(record.peer)->Query(session);
  if (!recorded.ok()) return {};
  std::string_view reason = "the source no longer knows the session";
  if (*recorded == RecordedOutcome::kHandedOver && IsArmedFor(*vm, record)) {
    auto vmm = parts_.connect_vmm(vm->qmp_path);
    if (!vmm.ok()) return {};
    const auto state = (*vmm)->QueryState();
    if (!state.ok()) return {};
    // Its monitor is the session's from then on.
    vmm->reset();
    if (*state == GuestState::kPaused) return TakeUpDestination(record, *std::move(vm));
    reason = "it was handed over, and its VMM here is not as it was loaded";
  } else if (*recorded == RecordedOutcome::kHandedOver) {
    reason = "it was handed over, and its VMM here has ended";
  } else if (*recorded != RecordedOutcome::kNone) {
    return {};
  }
  const absl::Status never = NeverRun(record, reason);
  if (!never.ok())
    spdlog::warn("session {}, vm {}, lost, {}", session, record.vm, never.ToString());
  return {.done = never.ok()};
}

LostSessions::Settled LostSessions::SettleOwner(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return {.done = absl::IsNotFound(vm.status())};
  if (IsArmedFor(*vm, record)) return TakeUpDestination(record, *std::move(vm));
  // "Arrived" is recorded before the release: this is another VMM, and the VM has ended as in a crash.
  return {.done = true};
}

LostSessions::Settled LostSessions::SettleIncomplete(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return {.done = absl::IsNotFound(vm.status())};
  if (!IsArmedFor(*vm, record)) return {.done = true};
  // An earlier daemon may have ended before all that is missing was poisoned.
  return TakeUpDestination(record, *std::move(vm));
}

LostSessions::Settled LostSessions::TakeUpDestination(const OwnershipRecord& record, VmRecord vm) {
  // What an earlier daemon has written may be readable and not be on the disk.
  const absl::Status durable = parts_.store.Write(record);
  if (!durable.ok()) {
    SayUnsettled(record, durable);
    return {};
  }
  auto session = DestinationSession::TakeUp(parts_, record, std::move(vm));
  if (!session.ok()) {
    SayUnsettled(record, session.status());
    return {};
  }
  if (record.mark == OwnershipMark::kIncomplete) {
    spdlog::info("session {}, vm {}, taken up: its source was given up", record.session.ToString(),
                 record.vm);
  } else {
    spdlog::info("session {}, vm {}, taken up: what has not arrived is brought from {}",
                 record.session.ToString(), record.vm, record.peer);
  }
  return {.done = true, .destination = *std::move(session)};
}

bool LostSessions::SettleArrived(const OwnershipRecord& record) {
  Progress figures = LastFigures(record);
  figures.state = SessionState::kCommitted;
  const absl::Status told =
      parts_.peers.ConnectSource(record.peer)->Arrived(figures.session, figures);
  if (!told.ok() && !absl::IsNotFound(told)) return false;
  if (const auto vm = parts_.registry.Find(record.vm); vm.ok() && IsArmedFor(*vm, record)) {
    const absl::Status released = parts_.registry.Release(record.vm, record.session);
    if (!released.ok()) return false;
  }
  OwnershipRecord committed = record;
  committed.mark = OwnershipMark::kCommitted;
  return parts_.store.Write(committed).ok();
}

// The record may have been written before the VMM had come back to this daemon.
bool LostSessions::SettleNever(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return absl::IsNotFound(vm.status());
  if (!IsArmedFor(*vm, record)) return true;
  const absl::Status never = NeverRun(record, "it was given up before");
  if (!never.ok()) spdlog::warn("vm {}, lost, {}", record.vm, never.ToString());
  return never.ok();
}

absl::Status LostSessions::NeverRun(const OwnershipRecord& record, std::string_view reason) {
  const absl::Status freed = FreeVmm(record);
  if (!freed.ok()) return freed;
  OwnershipRecord never = record;
  never.mark = OwnershipMark::kNever;
  const absl::Status recorded = parts_.store.Write(never);
  if (recorded.ok()) {
    spdlog::info("session {}, vm {}, lost: never runs here, cause {}", record.session.ToString(),
                 record.vm, reason);
  }
  return recorded;
}

absl::Status LostSessions::FreeVmm(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return absl::IsNotFound(vm.status()) ? absl::OkStatus() : vm.status();
  if (!IsArmedFor(*vm, record)) return absl::OkStatus();
  // A VMM that has begun to load waits for pages that nobody brings: its monitor may be silent, and
  // only its end frees it. One that still waits for a machine can be used for another.
  bool waits = false;
  if (auto vmm = parts_.connect_vmm(vm->qmp_path); vmm.ok()) {
    const auto state = (*vmm)->QueryState();
    waits = state.ok() && *state == GuestState::kWaitsForIncoming;
  }
  // Another session may have taken it meanwhile, and released it from this one.
  const auto now = parts_.registry.Find(record.vm);
  if (!now.ok()) return absl::IsNotFound(now.status()) ? absl::OkStatus() : now.status();
  if (!IsArmedFor(*now, record)) return absl::OkStatus();
  if (!waits) return KillVmm(*now);
  for (const VmBlock& block : now->blocks) {
    if (block.kind != wire::BlockKind::kSharedFile) continue;
    const auto emptied = PunchRamFile(block.ram_file.get(), block.file_offset, block.size_bytes);
    if (!emptied.ok()) spdlog::warn("vm {}, {}", record.vm, emptied.error().message);
  }
  return parts_.registry.Release(record.vm, record.session);
}

absl::StatusOr<RecoveryReport> LostSessions::Recover(const std::string& vm) {
  const std::vector<OwnershipRecord> records = parts_.store.ReadAll(vm);
  if (records.empty()) {
    return absl::NotFoundError(absl::StrCat("VM ", vm, " takes part in no relocation on this host"));
  }
  const OwnershipRecord& last = records.back();
  switch (last.mark) {
    case OwnershipMark::kRolledBack:
      return RecoveryReport{SessionState::kRolledBack, "source",
                            absl::StrCat("VM ", vm, " stayed here; nothing needs to be recovered")};
    case OwnershipMark::kOwner:
      return RecoveryReport{
          SessionState::kHandedOver, "destination",
          absl::StrCat("VM ", vm, " is owned by this host since session ", last.session.ToString(),
                       HasEnded(last) ? ", and has ended as in a crash"
                                      : absl::StrCat("; it is not taken up yet: ", WhyNot(vm)),
                       ". What had not arrived stays at ", last.peer)};
    case OwnershipMark::kArrived:
      return RecoveryReport{
          SessionState::kRunning, "destination",
          absl::StrCat("VM ", vm, " has arrived completely; ", last.peer, " has yet to be told")};
    case OwnershipMark::kIncomplete:
      return RecoveryReport{
          SessionState::kFailed, "destination",
          absl::StrCat("VM ", vm,
                       " is owned by this host, and a part of its memory was lost for "
                       "good with its source, ",
                       last.peer, " (session ", last.session.ToString(),
                       "): touching that ends the access with SIGBUS, and the VM cannot be "
                       "relocated; shut it down and start it anew")};
    case OwnershipMark::kOffered:
      return RecoveryReport{
          SessionState::kUnknown, "nobody yet",
          absl::StrCat("VM ", vm, " was offered by ", last.peer, " in session ",
                       last.session.ToString(), ", and this daemon has lost the session: it never ran "
                       "here; recover it there")};
    case OwnershipMark::kNever:
      return RecoveryReport{SessionState::kRolledBack, "source",
                            absl::StrCat("VM ", vm, " never ran here; it stayed at ", last.peer)};
    case OwnershipMark::kCommitted:
      return RecoveryReport{SessionState::kCommitted, "destination",
                            absl::StrCat("the last relocation of VM ", vm, " was committed")};
    case OwnershipMark::kPrepared:
    case OwnershipMark::kHandedOver: break;
  }
  const std::string session = last.session.ToString();
  auto destination = parts_.peers.ConnectDestination(last.peer);
  const bool handed_over = last.mark == OwnershipMark::kHandedOver;
  if (handed_over && destination->HandOver(session).ok()) {
    return RecoveryReport{
        SessionState::kRunning, "destination",
        absl::StrCat("VM ", vm, " runs at ", last.peer,
                     ". What had not arrived there cannot be served by this daemon yet: ",
                     WhyNot(vm))};
  }
  const absl::Status aborted = destination->Abort(session, "recovered by the source",
                                                    kAbortTimeout);
  if (aborted.code() == absl::StatusCode::kFailedPrecondition) {
    return RecoveryReport{SessionState::kHandedOver, "destination",
                          absl::StrCat("VM ", vm, " is owned by ", last.peer, ": ",
                                       std::string(aborted.message()))};
  }
  if (!aborted.ok() && handed_over) {
    return RecoveryReport{
        SessionState::kUnknown, "unknown",
        absl::StrCat("VM ", vm, " was handed over to ", last.peer, ", which cannot be asked (",
                     std::string(aborted.message()), "). It stays stopped here. Resuming it here by "
                     "hand could run it twice, unless that host is off for good")};
  }
  // It was never handed over, or the destination has recorded that it never ran it.
  const absl::Status resumed = ResumeSource(last);
  if (!resumed.ok()) return resumed;
  return RecoveryReport{SessionState::kRolledBack, "source",
                        absl::StrCat("VM ", vm, " goes on here")};
}

std::string LostSessions::WhyNot(const std::string& vm) const {
  const auto said = said_.find(vm);
  return said != said_.end() ? said->second
                             : "its VMM has not registered, as its hook does within half a second";
}

absl::Status LostSessions::Abort(const std::string& session, std::string_view reason) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("abort: malformed session id");
  const auto record = parts_.store.Read(*id);
  if (!record.ok()) return Unreadable(record.status());
  switch (record->mark) {
    case OwnershipMark::kOwner:
    case OwnershipMark::kArrived:
    case OwnershipMark::kIncomplete:
    case OwnershipMark::kCommitted:
      return absl::FailedPreconditionError("this host owns the VM: it cannot give it back");
    case OwnershipMark::kPrepared:
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kRolledBack:
      return absl::FailedPreconditionError("this host is the source of that session");
    case OwnershipMark::kOffered:
    case OwnershipMark::kNever: break;
  }
  return NeverRun(*record, reason);
}

absl::StatusOr<int64_t> LostSessions::HandOver(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("hand-over: malformed session id");
  const auto record = parts_.store.Read(*id);
  if (!record.ok()) return Unreadable(record.status());
  switch (record->mark) {
    case OwnershipMark::kOwner:
      if (!HasEnded(*record)) return BeingTakenUp();
      return absl::DataLossError(Crashed(*record));
    case OwnershipMark::kArrived:
    case OwnershipMark::kIncomplete:
    case OwnershipMark::kCommitted: return 0;
    case OwnershipMark::kNever: {
      const absl::Status durable = parts_.store.Write(*record);
      return durable.ok() ? absl::AbortedError("this host has recorded that it never runs this VM")
                          : Unreadable(durable);
    }
    case OwnershipMark::kPrepared:
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kRolledBack:
      return absl::FailedPreconditionError("this host is the source of that session");
    case OwnershipMark::kOffered: break;
  }
  if (MayTakeUp(*record)) return BeingTakenUp();
  const absl::Status never = NeverRun(*record, "its VMM cannot take it any more");
  if (!never.ok()) return Unreadable(never);
  return absl::AbortedError("the destination's VMM had ended before the guest was started");
}

std::optional<Progress> LostSessions::Figures(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return std::nullopt;
  const auto record = parts_.store.Read(*id);
  if (!record.ok() || record->mark != OwnershipMark::kOwner || !HasEnded(*record)) {
    return std::nullopt;
  }
  Progress figures = LastFigures(*record);
  figures.state = SessionState::kFailed;
  figures.error = Crashed(*record);
  return figures;
}

absl::Status LostSessions::Arrived(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("arrived: malformed session id");
  auto record = parts_.store.Read(*id);
  if (!record.ok()) return Unreadable(record.status());
  if (record->mark != OwnershipMark::kHandedOver && record->mark != OwnershipMark::kCommitted) {
    return absl::FailedPreconditionError(absl::StrCat("arrived: the session is recorded as ",
                                                      std::string(NameOf(record->mark))));
  }
  if (record->mark == OwnershipMark::kHandedOver && MayTakeUp(*record)) return BeingTakenUp();
  // Also where it says so already: the destination forgets the session once this has returned.
  record->mark = OwnershipMark::kCommitted;
  return parts_.store.Write(*record);
}

bool LostSessions::MayTakeUp(const OwnershipRecord& record) const {
  if (hopeless_.count(record.session) > 0) return false;
  return !absl::IsNotFound(parts_.registry.Find(record.vm).status()) ||
         std::chrono::steady_clock::now() - began_ < kHooksReturnWithin;
}

}  // namespace postcopy
