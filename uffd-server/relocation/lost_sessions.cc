#include "relocation/lost_sessions.h"

#include <spdlog/spdlog.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "platform/ram_file.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kLoadSettingsLimit{1'000};  // one answer

bool IsArmedFor(const VmRecord& vm, const OwnershipRecord& record) {
  return vm.arming.has_value() && vm.arming->session_id == record.session;
}

}  // namespace

const OwnershipRecord* LostSessions::Governing(const OwnershipStore::Records& records,
                                               const absl::StatusOr<VmRecord>& registered) {
  if (!registered.ok() || !registered->arming.has_value()) {
    return records.readable.empty() ? nullptr : &records.readable.back();
  }
  for (const OwnershipRecord& record : records.readable) {
    if (record.role == SessionRole::kDestination && IsArmedFor(*registered, record)) return &record;
  }
  return nullptr;
}

LostSessions::Settled LostSessions::Settle(const std::string& vm) {
  const auto records = parts_.store.ReadAll(vm);
  const auto registered = parts_.registry.Find(vm);
  if (!records.ok() || (!registered.ok() && !absl::IsNotFound(registered.status()))) {
    const absl::Status& cause = records.ok() ? registered.status() : records.status();
    SayUnsettled(vm, "?", cause.ToString());
    return {};
  }
  const OwnershipRecord* const governing = Governing(*records, registered);
  for (const OwnershipRecord& record : records->readable) {
    // Of an earlier session: not again and again, since its source may be gone for good.
    if (record.mark == OwnershipMark::kArrived && &record != governing &&
        told_once_.insert(record.session).second) {
      SettleArrived(record);
    }
  }
  const bool armed = registered.ok() && registered->arming.has_value();
  if (governing == nullptr && armed) return SettleUnrecorded(*registered, *records);
  if (registered.ok() && !armed &&
      (governing == nullptr || governing->mark == OwnershipMark::kRolledBack)) {
    for (const UnreadableRecord& record : records->unreadable) {
      if (record.role == SessionRole::kSource && record.details.has_value()) {
        return SettleUnreadableSource(*registered, *record.details);
      }
    }
  }
  return governing == nullptr ? Settled{.done = true} : SettleRecord(*governing);
}

LostSessions::Settled LostSessions::SettleRecord(const OwnershipRecord& record) {
  switch (record.mark) {
    case OwnershipMark::kPrepared: return SettleSource(record);
    case OwnershipMark::kHandedOver: return SettleHandedOver(record);
    case OwnershipMark::kOffered: return SettleOffered(record);
    case OwnershipMark::kOwner: return SettleOwner(record);
    case OwnershipMark::kIncomplete: return SettleIncomplete(record);
    case OwnershipMark::kNever: return {.done = SettleNever(record)};
    case OwnershipMark::kArrived: return {.done = SettleArrived(record)};
    case OwnershipMark::kRolledBack:
      return {.done = SettleRolledBack(record)};
    case OwnershipMark::kCommitted:
      return {.done = true};
  }
  return {.done = true};
}

absl::StatusOr<std::vector<std::string>> LostSessions::ToSettle() const {
  const auto records = parts_.store.ReadAll();
  if (!records.ok()) return records.status();
  std::vector<std::string> vms;
  for (const OwnershipRecord& record : records->readable) {
    if (record.mark == OwnershipMark::kArrived || record.mark == OwnershipMark::kHandedOver) {
      vms.push_back(record.vm);
    }
  }
  return vms;
}

void LostSessions::SayUnsettled(const OwnershipRecord& record, const absl::Status& cause) {
  if (absl::IsFailedPrecondition(cause)) hopeless_.insert(record.session);
  SayUnsettled(record.vm, record.session.ToString(), cause.ToString());
}

void LostSessions::SayUnsettled(const std::string& vm, const std::string& session,
                                const std::string& cause) {
  std::string& said = said_[vm];
  if (said == cause) return;
  said = cause;
  spdlog::warn("session {}, vm {}, lost, not taken up yet, cause {}", session, vm, cause);
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
  auto vmm = parts_.connect_vmm(*vm);
  if (!vmm.ok()) return vmm.status();
  const auto description = (*vmm)->Describe();
  if (!description.ok()) return description.status();
  // Another process of that name, or one that was never stopped, is none of this session's business.
  const absl::Status unfenced = parts_.registry.Unfence(record.vm, record.session);
  if (!unfenced.ok()) return unfenced;
  if (IdentityOf(*vm) == record.vmm) (*vmm)->AdoptEmptiedAtEnd(record.emptied_at_end);
  absl::Status resumed;
  switch (description->state) {
    case GuestState::kWaitsForIncoming: break;
    case GuestState::kRunning:
    case GuestState::kPaused:
      // The earlier daemon may have ended between its settings and the stop.
      if (IdentityOf(*vm) != record.vmm) break;
      if ((*vmm)->EmptiesMemoryAtEnd()) resumed = (*vmm)->RestoreSettings();
      if (resumed.ok()) resumed = (*vmm)->EndLoadSettings(kLoadSettingsLimit);
      break;
    default: resumed = (*vmm)->ResumeSource(record.run);
  }
  if (!resumed.ok()) return resumed;
  OwnershipRecord rolled_back = record;
  rolled_back.mark = OwnershipMark::kRolledBack;
  rolled_back.to_resume = false;
  return parts_.store.Write(rolled_back);
}

// The record may have been written before the VM was resumed here.
bool LostSessions::SettleRolledBack(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return absl::IsNotFound(vm.status());
  const bool to_resume = record.to_resume && IdentityOf(*vm) == record.vmm;
  if (!to_resume && vm->fenced_for != record.session) return true;
  const absl::Status resumed = ResumeSource(record);
  if (!resumed.ok()) SayUnsettled(record, resumed);
  return resumed.ok();
}

LostSessions::Settled LostSessions::SettleHandedOver(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok() && !absl::IsNotFound(vm.status())) return {};
  if (!vm.ok() || (IdentityOf(*vm) != record.vmm && HasEnded(record.vmm))) {
    return SettleFiles(record);
  }
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

LostSessions::Settled LostSessions::SettleFiles(const OwnershipRecord& record) {
  if (record.vmm.pid == 0) return {.done = true};  // an old record, which does not name its VMM
  if (!HasEnded(record.vmm)) return {};            // its hook comes back
  auto session = IsOfThisBoot(record.vmm)
                     ? SourceSession::TakeUpFiles(parts_, record)
                     : absl::FailedPreconditionError(absl::StrCat(
                           "VM ", record.vm, " was handed over to ", record.peer,
                           ", and this host has restarted since: what had not arrived is lost"));
  if (!session.ok()) {
    SayUnsettled(record, session.status());
    return {.done = absl::IsFailedPrecondition(session.status())};
  }
  spdlog::warn("session {}, vm {}, taken up without its VMM (process {}), which has ended: its memory is "
               "served again to {} from its RAM files",
               record.session.ToString(), record.vm, record.vmm.pid, record.peer);
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
    auto vmm = parts_.connect_vmm(*vm);
    if (!vmm.ok()) return {};
    const auto state = (*vmm)->QueryState();
    if (!state.ok()) return {};
    // Its monitor is the session's from then on.
    vmm->reset();
    if (*state == GuestState::kPaused) return TakeUpDestination(record, *std::move(vm));
    reason = "it was handed over, and its VMM here is not as it was loaded";
  } else if (*recorded == RecordedOutcome::kHandedOver) {
    reason = "it was handed over, and its VMM here has ended";
  } else if (*recorded == RecordedOutcome::kCommitted && !IsArmedFor(*vm, record)) {
    // It ran here and all of it has come: this record is an older one that was put back.
    OwnershipRecord committed = record;
    committed.mark = OwnershipMark::kCommitted;
    return {.done = parts_.store.Write(committed).ok()};
  } else if (*recorded != RecordedOutcome::kNone && *recorded != RecordedOutcome::kRolledBack) {
    return {};
  }
  const absl::Status never = NeverRun(record, reason);
  if (!never.ok())
    spdlog::warn("session {}, vm {}, lost, {}", session, record.vm, never.ToString());
  return {.done = never.ok()};
}

LostSessions::Settled LostSessions::SettleOwner(const OwnershipRecord& record) {
  auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok() && !absl::IsNotFound(vm.status())) return {};
  if (vm.ok() && IsArmedFor(*vm, record)) return TakeUpDestination(record, *std::move(vm));
  StayedAtSource(record);
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

Progress LostSessions::LastFigures(const OwnershipRecord& record) {
  Progress figures;
  figures.vm = record.vm;
  figures.session = record.session.ToString();
  figures.peer = record.peer;
  figures.role = SessionRole::kDestination;
  return figures;
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
  if (const absl::Status ended = EndLoadSettings(record); !ended.ok()) {
    SayUnsettled(record, ended);
    return false;
  }
  OwnershipRecord committed = record;
  committed.mark = OwnershipMark::kCommitted;
  return parts_.store.Write(committed).ok();
}

absl::Status LostSessions::EndLoadSettings(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (absl::IsNotFound(vm.status()) || (vm.ok() && vm->pid() != record.vmm.pid)) {
    return absl::OkStatus();
  }
  if (!vm.ok()) return vm.status();
  auto vmm = parts_.connect_vmm(*vm);
  return vmm.ok() ? (*vmm)->EndLoadSettings(kLoadSettingsLimit) : vmm.status();
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
  if (auto vmm = parts_.connect_vmm(*vm); vmm.ok()) {
    const auto state = (*vmm)->QueryState();
    waits = state.ok() && *state == GuestState::kWaitsForIncoming;
  }
  // Another session may have taken it meanwhile, and released it from this one.
  const auto now = parts_.registry.Find(record.vm);
  if (!now.ok()) return absl::IsNotFound(now.status()) ? absl::OkStatus() : now.status();
  if (!IsArmedFor(*now, record)) return absl::OkStatus();
  if (!waits) return KillVmm(*now);
  if (const absl::Status ended = EndLoadSettings(record); !ended.ok()) {
    spdlog::warn("vm {}, settings of the load stay on, {}", record.vm, ended.ToString());
  }
  for (const size_t position : now->arming->blocks) {
    const VmBlock& block = now->blocks[position];
    if (block.kind != wire::BlockKind::kSharedFile) continue;
    const auto emptied = PunchRamFile(block.ram_file.get(), block.file_offset, block.size_bytes);
    if (!emptied.ok()) spdlog::warn("vm {}, {}", record.vm, emptied.error().message);
  }
  return parts_.registry.Release(record.vm, record.session);
}

}  // namespace postcopy
