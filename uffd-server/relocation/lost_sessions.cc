#include "relocation/lost_sessions.h"

#include <spdlog/spdlog.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"

namespace postcopy {

bool LostSessions::Settle(const std::string& vm) {
  const std::vector<OwnershipRecord> records = parts_.store.ReadAll(vm);
  if (records.empty()) return true;
  switch (records.back().mark) {
    case OwnershipMark::kPrepared: return SettleSource(records.back());
    case OwnershipMark::kOffered: return SettleDestination(records.back());
    case OwnershipMark::kNever: return SettleNever(records.back());
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kOwner:
    case OwnershipMark::kRolledBack:
    case OwnershipMark::kCommitted: return true;
  }
  return true;
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

bool LostSessions::SettleDestination(const OwnershipRecord& record) {
  if (!parts_.registry.Find(record.vm).ok()) return true;  // it has ended
  const std::string session = record.session.ToString();
  const auto recorded = parts_.peers.ConnectSource(record.peer)->Query(session);
  if (!recorded.ok() || *recorded != RecordedOutcome::kNone) return false;
  const absl::Status never = NeverRun(record, "the source no longer knows the session");
  if (!never.ok()) {
    spdlog::warn("session {}, vm {}, lost, {}", session, record.vm, never.ToString());
  }
  return never.ok();
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
          absl::StrCat("VM ", vm, " is owned by this host since session ",
                       last.session.ToString(), ", and this daemon has lost the session: what had "
                       "not arrived stays at ", last.peer)};
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
    return RecoveryReport{SessionState::kRunning, "destination",
                          absl::StrCat("VM ", vm, " runs at ", last.peer)};
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
  if (record.ok()) {
    if (record->mark == OwnershipMark::kOwner || record->mark == OwnershipMark::kCommitted) {
      return absl::FailedPreconditionError("this host owns the VM: it cannot give it back");
    }
    if (record->mark != OwnershipMark::kOffered && record->mark != OwnershipMark::kNever) {
      return absl::FailedPreconditionError("this host is the source of that session");
    }
    return NeverRun(*record, reason);
  }
  if (record.status().code() != absl::StatusCode::kNotFound) return record.status();
  return parts_.store.Write({*id, "", "", OwnershipMark::kNever, false});
}

}  // namespace postcopy
