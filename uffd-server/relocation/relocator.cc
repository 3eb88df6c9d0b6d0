#include "relocation/relocator.h"

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"

namespace postcopy {
namespace {

absl::Status NoSession(const std::string& session) {
  return absl::NotFoundError(absl::StrCat("no session ", session, " on this host"));
}

absl::Status NoSessionOf(const std::string& vm) {
  return absl::NotFoundError(absl::StrCat("VM ", vm, " takes part in no relocation on this host"));
}

}  // namespace

bool Relocator::Slot::Busy() const {
  if (preparing) return true;
  if (source != nullptr) return !IsFinal(source->state());
  return destination != nullptr && !IsFinal(destination->state());
}

absl::Status Relocator::Reserve(const std::string& vm) {
  const Slot before = Find(vm);
  if (before.source != nullptr && before.source->IsDead()) {
    const absl::Status cancelled = before.source->Cancel();  // tells the destination, too
    if (!cancelled.ok()) spdlog::warn("vm {}, {}", vm, cancelled.ToString());
  }
  Slot ended;  // destroyed without the lock
  absl::MutexLock lock(&mutex_);
  Slot& slot = slots_[vm];
  if (slot.Busy()) {
    return absl::FailedPreconditionError(
        absl::StrCat("VM ", vm, " takes part in another relocation already"));
  }
  std::swap(ended, slot);
  slot.preparing = true;
  return absl::OkStatus();
}

void Relocator::Fill(const std::string& vm, Slot slot) {
  absl::MutexLock lock(&mutex_);
  if (slot.source == nullptr && slot.destination == nullptr) {
    slots_.erase(vm);
  } else {
    slots_[vm] = std::move(slot);
  }
}

Relocator::Slot Relocator::Find(const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  const auto found = slots_.find(vm);
  return found == slots_.end() ? Slot{} : found->second;
}

bool Relocator::MayHandOver(const std::string& session, const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  const auto found = slots_.find(vm);
  if (found == slots_.end()) return false;
  const Slot& slot = found->second;
  return slot.preparing || (slot.source != nullptr && slot.source->session() == session &&
                            !IsFinal(slot.source->state()));
}

std::shared_ptr<SourceSession> Relocator::FindSource(const std::string& session) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [vm, slot] : slots_) {
    if (slot.source != nullptr && slot.source->session() == session) return slot.source;
  }
  return nullptr;
}

std::shared_ptr<DestinationSession> Relocator::FindDestination(const std::string& session) {
  absl::MutexLock lock(&mutex_);
  for (const auto& [vm, slot] : slots_) {
    if (slot.destination != nullptr && slot.destination->session() == session) {
      return slot.destination;
    }
  }
  return nullptr;
}

std::string Relocator::GuestStateText(const std::string& qmp_path) {
  auto vmm = parts_.connect_vmm(qmp_path);
  if (!vmm.ok()) return "";
  const auto description = (*vmm)->Describe();
  return description.ok() ? description->state_text : "";
}

std::vector<VmSummary> Relocator::List() {
  std::vector<VmSummary> vms;
  for (const VmRecord& record : parts_.registry.List()) {
    VmSummary vm;
    vm.name = record.name;
    vm.pid = record.pid();
    vm.problem = record.problem;
    for (const VmBlock& block : record.blocks) vm.ram_bytes += block.size_bytes;
    const Slot slot = Find(record.name);
    if (slot.source != nullptr || slot.destination != nullptr) {
      vm.in_session = true;
      vm.progress = slot.source != nullptr ? slot.source->Snapshot() : slot.destination->Snapshot();
    }
    // A session holds the monitor; QEMU answers one client.
    if (!slot.Busy()) vm.guest_state = GuestStateText(record.qmp_path);
    vms.push_back(std::move(vm));
  }
  return vms;
}

absl::StatusOr<std::string> Relocator::Prepare(const PrepareOptions& options) {
  const absl::Status known = parts_.registry.Find(options.vm).status();
  if (!known.ok()) return known;
  const absl::Status reserved = Reserve(options.vm);
  if (!reserved.ok()) return reserved;
  for (const OwnershipRecord& record : parts_.store.ReadAll(options.vm)) {
    // Ended sessions of a VM that is here and can be relocated have nothing more to say.
    if (record.mark != OwnershipMark::kHandedOver) parts_.store.Remove(record.session);
  }
  auto session = SourceSession::Prepare(parts_, options);
  Slot slot;
  if (session.ok()) slot.source = *session;
  Fill(options.vm, std::move(slot));
  if (!session.ok()) return session.status();
  return (*session)->session();
}

absl::StatusOr<double> Relocator::Switch(const std::string& session) {
  const auto source = FindSource(session);
  if (source == nullptr) return NoSession(session);
  return source->Switch();
}

absl::StatusOr<Progress> Relocator::Stats(const std::string& vm) {
  const Slot slot = Find(vm);
  if (slot.source != nullptr) return slot.source->Snapshot();
  if (slot.destination != nullptr) return slot.destination->Snapshot();
  return NoSessionOf(vm);
}

absl::StatusOr<Progress> Relocator::WaitForChange(const std::string& vm, SessionState seen,
                                                  std::chrono::milliseconds timeout) {
  const Slot slot = Find(vm);
  if (slot.source != nullptr) {
    slot.source->WaitForChange(seen, timeout);
    return slot.source->Snapshot();
  }
  if (slot.destination != nullptr) {
    slot.destination->WaitForChange(seen, timeout);
    return slot.destination->Snapshot();
  }
  return NoSessionOf(vm);
}

absl::Status Relocator::Cancel(const std::string& vm) {
  const Slot slot = Find(vm);
  if (slot.source != nullptr) return slot.source->Cancel();
  if (slot.destination != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("cancel ", vm, ": this host is the destination; cancel it at the source, ",
                     slot.destination->Snapshot().peer));
  }
  return NoSessionOf(vm);
}

absl::Status Relocator::Release(const std::string& vm) {
  const Slot slot = Find(vm);
  if (slot.source == nullptr) return NoSessionOf(vm);
  if (slot.source->state() != SessionState::kCommitted) {
    return absl::FailedPreconditionError(
        absl::StrCat("release ", vm, ": its relocation is ",
                     std::string(Name(slot.source->state())), ", not committed"));
  }
  return slot.source->Release();
}

absl::StatusOr<RecoveryReport> Relocator::Recover(const std::string& vm) {
  const Slot slot = Find(vm);
  if (slot.source != nullptr) return slot.source->Recover();
  if (slot.destination != nullptr) {
    const Progress progress = slot.destination->Snapshot();
    return RecoveryReport{
        progress.state, IsAfterSwitch(progress.state) ? "destination" : "nobody yet",
        absl::StrCat("VM ", vm, " arrives here from ", progress.peer, "; its session is ",
                     std::string(Name(progress.state)),
                     progress.error.empty() ? "" : absl::StrCat("; ", progress.error))};
  }
  return RecoverFromRecords(vm);
}

absl::StatusOr<RecoveryReport> Relocator::RecoverFromRecords(const std::string& vm) {
  const std::vector<OwnershipRecord> records = parts_.store.ReadAll(vm);
  if (records.empty()) return NoSessionOf(vm);
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
  const absl::Status aborted = destination->Abort(session, "recovered by the source");
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
  const absl::Status resumed = ResumeFromRecord(last);
  if (!resumed.ok()) return resumed;
  return RecoveryReport{SessionState::kRolledBack, "source",
                        absl::StrCat("VM ", vm, " goes on here")};
}

absl::Status Relocator::ResumeFromRecord(const OwnershipRecord& record) {
  const auto vm = parts_.registry.Find(record.vm);
  if (!vm.ok()) return vm.status();
  auto vmm = parts_.connect_vmm(vm->qmp_path);
  if (!vmm.ok()) return vmm.status();
  const absl::Status resumed = (*vmm)->ResumeSource(record.run);
  if (!resumed.ok()) return resumed;
  OwnershipRecord rolled_back = record;
  rolled_back.mark = OwnershipMark::kRolledBack;
  return parts_.store.Write(rolled_back);
}

absl::Status Relocator::OnOffer(const Offer& offer) {
  const absl::Status reserved = Reserve(offer.vm);
  if (!reserved.ok()) return reserved;
  auto session = DestinationSession::Prepare(parts_, offer);
  Slot slot;
  if (session.ok()) slot.destination = *session;
  Fill(offer.vm, std::move(slot));
  if (session.ok()) return absl::OkStatus();
  spdlog::info("offer of vm {} refused, cause {}", offer.vm, session.status().ToString());
  return Prefixed(absl::StrCat("VM ", offer.vm), session.status());
}

absl::Status Relocator::OnOpenIncoming(const std::string& session) {
  const auto destination = FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->OpenIncoming();
}

absl::Status Relocator::OnLoad(const std::string& session, bool run,
                               std::string_view device_state) {
  const auto destination = FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->Load(run, device_state);
}

absl::StatusOr<int64_t> Relocator::OnHandOver(const std::string& session) {
  const auto destination = FindDestination(session);
  if (destination == nullptr) return NoSession(session);
  return destination->HandOver();
}

absl::Status Relocator::OnAbort(const std::string& session, std::string_view reason) {
  const auto destination = FindDestination(session);
  if (destination != nullptr) return destination->Abort(std::string(reason));
  // A session that this daemon has lost: its record, if there is one, decides.
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("abort: malformed session id");
  const auto record = parts_.store.Read(*id);
  if (record.ok() && (record->mark == OwnershipMark::kOwner ||
                      record->mark == OwnershipMark::kCommitted)) {
    return absl::FailedPreconditionError("this host owns the VM: it cannot give it back");
  }
  if (!record.ok() && record.status().code() != absl::StatusCode::kNotFound) {
    return record.status();
  }
  return parts_.store.Write({*id, "", "", OwnershipMark::kNever, false});
}

absl::StatusOr<Progress> Relocator::OnFigures(const std::string& session) {
  const auto destination = FindDestination(session);
  if (destination == nullptr) return NoSession(session);
  return destination->Snapshot();
}

absl::Status Relocator::OnArrived(const std::string& session, const Progress& figures) {
  const auto source = FindSource(session);
  if (source != nullptr) return source->OnArrived(figures);
  // The source's daemon has restarted since: what is on disk is brought up to date.
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("arrived: malformed session id");
  auto record = parts_.store.Read(*id);
  if (!record.ok()) return record.status();
  record->mark = OwnershipMark::kCommitted;
  return parts_.store.Write(*record);
}

absl::StatusOr<RecordedOutcome> Relocator::OnQuery(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("query: malformed session id");
  const auto record = parts_.store.Read(*id);
  if (!record.ok()) {
    if (record.status().code() != absl::StatusCode::kNotFound) return RecordedOutcome::kUnreadable;
    const bool live = FindSource(session) != nullptr || FindDestination(session) != nullptr;
    return live ? RecordedOutcome::kPrepared : RecordedOutcome::kNone;
  }
  switch (record->mark) {
    case OwnershipMark::kPrepared:
      return MayHandOver(session, record->vm) ? RecordedOutcome::kPrepared
                                              : RecordedOutcome::kNone;
    case OwnershipMark::kOffered: return RecordedOutcome::kPrepared;
    case OwnershipMark::kHandedOver: return RecordedOutcome::kHandedOver;
    case OwnershipMark::kRolledBack: return RecordedOutcome::kNone;
    case OwnershipMark::kOwner: return RecordedOutcome::kOwner;
    case OwnershipMark::kNever: return RecordedOutcome::kNever;
    case OwnershipMark::kCommitted: return RecordedOutcome::kCommitted;
  }
  return RecordedOutcome::kUnreadable;
}

}  // namespace postcopy
