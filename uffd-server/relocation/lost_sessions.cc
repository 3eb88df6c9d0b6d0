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

}  // namespace

LostSessions::Settled LostSessions::Settle(const std::string& vm) {
  const std::vector<OwnershipRecord> records = parts_.store.ReadAll(vm);
  if (records.empty()) return {.done = true};
  const OwnershipRecord& last = records.back();
  switch (last.mark) {
    case OwnershipMark::kPrepared:
      return {.done = SettleSource(last)};
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
  std::string& said = said_[record.vm];
  const std::string text = cause.ToString();
  if (said == text) return;
  said = text;
  spdlog::warn("session {}, vm {}, lost, not taken up yet, cause {}", record.session.ToString(),
               record.vm, text);
}

bool LostSessions::SettleSource(const OwnershipRecord& record) {
  // Nobody told the destination that it owns the VM, so it never runs it, and finds out by itself where
  // it cannot be asked. Where it can, its word counts: it would know of a record that this disk lost.
  const absl::Status aborted =
      parts_.peers.ConnectDestination(record.peer)
          ->Abort(record.session.ToString(), "the source's daemon has restarted", kQuickAbortTimeout);
  if (aborted.code() == absl::StatusCode::kFailedPrecondition) {
    spdlog::error("session {}, vm {}, lost, stays stopped here, cause {}", record.session.ToString(),
                  record.vm, std::string(aborted.message()));
    return true;
  }
  const absl::Status resumed = ResumeSource(record);
  if (resumed.ok()) {
    spdlog::info("session {}, vm {}, lost before it was handed over: goes on here",
                 record.session.ToString(), record.vm);
    return true;
  }
  spdlog::warn("session {}, vm {}, lost, {}", record.session.ToString(), record.vm,
               resumed.ToString());
  return !parts_.registry.Find(record.vm).ok();  // it has ended
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
  if (!vm.ok()) return {.done = true};  // when it registers, it is settled again
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
  if (!vm.ok()) return {.done = true};  // it has ended: HandOver() or Abort() says so
  const std::string session = record.session.ToString();
  const auto recorded = parts_.peers.ConnectSource(record.peer)->Query(session);
  if (!recorded.ok()) return {};
  std::string_view reason = "the source no longer knows the session";
  if (*recorded == RecordedOutcome::kHandedOver && vm->arming.has_value() &&
      vm->arming->session_id == record.session) {
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
  if (!vm.ok()) return {.done = true};  // it has ended, as in a crash
  if (vm->arming.has_value() && vm->arming->session_id == record.session) {
    return TakeUpDestination(record, *std::move(vm));
  }
  // It is released when everything has come, and not before.
  OwnershipRecord arrived = record;
  arrived.mark = OwnershipMark::kArrived;
  if (!parts_.store.Write(arrived).ok()) return {};
  return {.done = SettleArrived(arrived)};
}

LostSessions::Settled LostSessions::SettleIncomplete(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  const bool runs_on =
      vm.ok() && vm->arming.has_value() && vm->arming->session_id == record.session;
  if (!runs_on) return {.done = true};
  // An earlier daemon may have ended before all that is missing was poisoned.
  return TakeUpDestination(record, *std::move(vm));
}

LostSessions::Settled LostSessions::TakeUpDestination(const OwnershipRecord& record, VmRecord vm) {
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
  Progress figures;
  figures.vm = record.vm;
  figures.session = record.session.ToString();
  figures.peer = record.peer;
  figures.role = SessionRole::kDestination;
  figures.state = SessionState::kCommitted;
  const absl::Status told =
      parts_.peers.ConnectSource(record.peer)->Arrived(figures.session, figures);
  if (!told.ok() && !absl::IsNotFound(told)) return false;
  OwnershipRecord committed = record;
  committed.mark = OwnershipMark::kCommitted;
  return parts_.store.Write(committed).ok();
}

// The record may have been written before the VMM had come back to this daemon.
bool LostSessions::SettleNever(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok() || !vm->arming.has_value() || vm->arming->session_id != record.session) return true;
  const absl::Status never = NeverRun(record, "it was given up before");
  if (!never.ok()) spdlog::warn("vm {}, lost, {}", record.vm, never.ToString());
  return never.ok();
}

absl::Status LostSessions::NeverRun(const OwnershipRecord& record, std::string_view reason) {
  const auto vm = parts_.registry.Find(record.vm);
  if (vm.ok() && vm->arming.has_value() && vm->arming->session_id == record.session) {
    // A VMM that has begun to load waits for pages that nobody brings: its monitor may be silent, and
    // only its end frees it. One that still waits for a machine can be used for another.
    bool waits = false;
    if (auto vmm = parts_.connect_vmm(vm->qmp_path); vmm.ok()) {
      const auto state = (*vmm)->QueryState();
      waits = state.ok() && *state == GuestState::kWaitsForIncoming;
    }
    if (waits) {
      for (const VmBlock& block : vm->blocks) {
        if (block.kind != wire::BlockKind::kSharedFile) continue;
        const auto emptied =
            PunchRamFile(block.ram_file.get(), block.file_offset, block.size_bytes);
        if (!emptied.ok()) spdlog::warn("vm {}, {}", record.vm, emptied.error().message);
      }
      const absl::Status released = parts_.registry.Release(record.vm, record.session);
      if (!released.ok()) return released;
    } else {
      const absl::Status killed = KillVmm(*vm);
      if (!killed.ok()) return killed;
    }
  }
  OwnershipRecord never = record;
  never.mark = OwnershipMark::kNever;
  const absl::Status recorded = parts_.store.Write(never);
  if (recorded.ok()) {
    spdlog::info("session {}, vm {}, lost: never runs here, cause {}", record.session.ToString(),
                 record.vm, reason);
  }
  return recorded;
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
          absl::StrCat(
              "VM ", vm, " is owned by this host since session ", last.session.ToString(),
              "; its VMM has not registered with this daemon: it has ended, or its hook comes "
              "back within a second. What had not arrived stays at ",
              last.peer)};
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
                     ". The VMM here has not registered with this "
                     "daemon: what had not arrived there cannot be served before it does")};
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

absl::Status LostSessions::Abort(const std::string& session, std::string_view reason) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("abort: malformed session id");
  const auto record = parts_.store.Read(*id);
  if (!record.ok()) return record.status();
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
    case OwnershipMark::kNever:
      break;
  }
  return NeverRun(*record, reason);
}

absl::StatusOr<int64_t> LostSessions::HandOver(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("hand-over: malformed session id");
  const auto record = parts_.store.Read(*id);
  if (!record.ok()) return record.status();
  switch (record->mark) {
    case OwnershipMark::kOwner:
    case OwnershipMark::kArrived:
    case OwnershipMark::kIncomplete:
    case OwnershipMark::kCommitted:
      return 0;
    case OwnershipMark::kNever:
      return absl::AbortedError("this host has recorded that it never runs this VM");
    case OwnershipMark::kPrepared:
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kRolledBack:
      return absl::FailedPreconditionError("this host is the source of that session");
    case OwnershipMark::kOffered:
      break;
  }
  if (MayTakeUp(record->vm)) return BeingTakenUp();
  const absl::Status never = NeverRun(*record, "its VMM has ended before the guest was started");
  if (!never.ok()) return never;
  return absl::AbortedError("the destination's VMM had ended before the guest was started");
}

absl::Status LostSessions::Arrived(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("arrived: malformed session id");
  auto record = parts_.store.Read(*id);
  if (!record.ok()) return record.status();
  if (record->mark == OwnershipMark::kCommitted) return absl::OkStatus();
  if (record->mark != OwnershipMark::kHandedOver) {
    return absl::FailedPreconditionError(
        absl::StrCat("arrived: the session is recorded as ", std::string(NameOf(record->mark))));
  }
  if (MayTakeUp(record->vm)) return BeingTakenUp();
  record->mark = OwnershipMark::kCommitted;
  return parts_.store.Write(*record);
}

bool LostSessions::MayTakeUp(const std::string& vm) const {
  return parts_.registry.Find(vm).ok() ||
         std::chrono::steady_clock::now() - began_ < kHooksReturnWithin;
}

}  // namespace postcopy
