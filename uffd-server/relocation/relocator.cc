#include "relocation/relocator.h"

#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"

namespace postcopy {
namespace {

// Whether neither side will ever ask for this record again.
bool HasEnded(OwnershipMark mark) {
  switch (mark) {
    case OwnershipMark::kRolledBack:
    case OwnershipMark::kCommitted: return true;
    case OwnershipMark::kNever:  // its source may not have asked yet
    case OwnershipMark::kPrepared:
    case OwnershipMark::kOffered:
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kOwner:
    case OwnershipMark::kArrived:
    case OwnershipMark::kIncomplete:  // it says why that VM must not be relocated
      break;
  }
  return false;
}

constexpr std::chrono::milliseconds kSettleAgain{1'000};
constexpr std::chrono::milliseconds kSettleTimeout{15'000};

absl::Status NoSession(const std::string& session) {
  return absl::NotFoundError(absl::StrCat("no session ", session, " on this host"));
}

absl::Status NoSessionOf(const std::string& vm) {
  return absl::NotFoundError(absl::StrCat("VM ", vm, " takes part in no relocation on this host"));
}

}  // namespace

Relocator::Relocator(DaemonParts parts) : parts_(std::move(parts)) {
  {
    absl::MutexLock lock(&mutex_);
    for (const std::string& vm : lost_.Untold()) unsettled_.insert(vm);
  }
  settler_ = std::thread([this] { SettleLostSessions(); });
  parts_.registry.SetObserver([this](const std::string& vm) { NoteRegistered(vm); });
}

Relocator::~Relocator() {
  parts_.registry.SetObserver({});
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  settler_.join();
}

void Relocator::NoteRegistered(const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  const auto [slot, is_new] = slots_.try_emplace(vm);
  if (!is_new) return;  // this daemon has, or had, its session
  slot->second.settling = true;
  unsettled_.insert(vm);
}

void Relocator::SettleLostSessions() {
  const auto to_do = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || !unsettled_.empty();
  };
  for (;;) {
    std::set<std::string> vms;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&to_do));
      if (ending_) return;
      vms.swap(unsettled_);
    }
    for (const std::string& vm : vms) SettleOne(vm);
    absl::MutexLock lock(&mutex_);
    // Nothing that registers from now on has to wait, only what could not be settled.
    const auto new_one = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      if (ending_) return true;
      for (const std::string& vm : unsettled_) {
        if (slots_[vm].settling) return true;
      }
      return false;
    };
    if (!unsettled_.empty()) {
      mutex_.AwaitWithTimeout(absl::Condition(&new_one), absl::FromChrono(kSettleAgain));
    }
  }
}

void Relocator::SettleOne(const std::string& vm) {
  {
    absl::MutexLock lock(&mutex_);
    Slot& slot = slots_[vm];
    if (slot.Busy() || slot.source != nullptr || slot.destination != nullptr) return;
    slot.settling = true;
  }
  Turn::Holder turn(lost_turn_);  // until what is taken up is in its slot
  LostSessions::Settled settled = lost_.Settle(vm);
  absl::MutexLock lock(&mutex_);
  Slot& slot = slots_[vm];
  slot.settling = false;
  if (settled.source != nullptr || settled.destination != nullptr) {
    slot.source = std::move(settled.source);
    slot.destination = std::move(settled.destination);
  } else if (!settled.done) {
    unsettled_.insert(vm);
  } else if (!slot.Busy() && slot.source == nullptr && slot.destination == nullptr) {
    slots_.erase(vm);
  }
}

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
  const auto settled = [this, &vm]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !slots_[vm].settling;
  };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&settled), absl::FromChrono(kSettleTimeout))) {
    return absl::FailedPreconditionError(absl::StrCat(
        "VM ", vm, ": what an earlier uffd-server left of its last relocation is still being put in "
        "order; `postcopyctl recover ", vm, "` tells more"));
  }
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
  const std::vector<OwnershipRecord> earlier = parts_.store.ReadAll(options.vm);
  auto session = SourceSession::Prepare(parts_, options);
  Slot slot;
  if (session.ok()) {
    slot.source = *session;
    // Sessions of a VM that is here and can be relocated, and that have ended, have nothing more to say.
    for (const OwnershipRecord& record : earlier) {
      if (HasEnded(record.mark)) parts_.store.Remove(record.session);
    }
  }
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

absl::Status Relocator::Hurry(const std::string& vm) {
  const Slot slot = Find(vm);
  if (slot.source != nullptr) return slot.source->Hurry();
  if (slot.destination != nullptr) return slot.destination->Hurry();
  return NoSessionOf(vm);
}

absl::StatusOr<std::string> Relocator::SourceLost(const std::string& vm, SourceLostAction action) {
  const Slot slot = Find(vm);
  if (slot.destination != nullptr) return slot.destination->SourceLost(action);
  if (slot.source == nullptr) return NoSessionOf(vm);
  return absl::FailedPreconditionError(
      absl::StrCat("source-lost ", vm, ": this host is the source; ask the destination, ",
                   slot.source->destination()));
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
    // One that has failed here had been handed over.
    const bool owner = IsAfterSwitch(progress.state) || progress.state == SessionState::kFailed;
    return RecoveryReport{
        progress.state, owner ? "destination" : "nobody yet",
        absl::StrCat("VM ", vm,
                     IsFinal(progress.state) ? " came here from " : " arrives here from ",
                     progress.peer, "; its session is ", std::string(Name(progress.state)),
                     progress.error.empty() ? "" : absl::StrCat("; ", progress.error))};
  }
  Turn::Holder turn(lost_turn_);
  return lost_.Recover(vm);
}

absl::Status Relocator::OnOffer(const Offer& offer) {
  const absl::Status reserved = Reserve(offer.vm);
  if (!reserved.ok()) return reserved;
  const std::vector<OwnershipRecord> earlier = parts_.store.ReadAll(offer.vm);
  auto session = DestinationSession::Prepare(parts_, offer);
  Slot slot;
  if (session.ok()) {
    slot.destination = *session;
    // A source that offers its VM anew has done with what came of the offers before.
    for (const OwnershipRecord& record : earlier) {
      const bool of_that_source = record.peer == offer.control_address;
      if (record.mark == OwnershipMark::kNever && of_that_source) parts_.store.Remove(record.session);
    }
  }
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
  auto destination = FindDestination(session);
  if (destination == nullptr) {
    Turn::Holder turn(lost_turn_);
    destination = FindDestination(session);
    if (destination == nullptr) return lost_.HandOver(session);
  }
  return destination->HandOver();
}

absl::Status Relocator::OnAbort(const std::string& session, std::string_view reason) {
  auto destination = FindDestination(session);
  if (destination == nullptr) {
    Turn::Holder turn(lost_turn_);
    destination = FindDestination(session);
    if (destination == nullptr) return lost_.Abort(session, reason);
  }
  return destination->Abort(std::string(reason));
}

absl::Status Relocator::OnHurry(const std::string& session) {
  const auto destination = FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->Hurry();
}

absl::StatusOr<Progress> Relocator::OnFigures(const std::string& session) {
  const auto destination = FindDestination(session);
  if (destination != nullptr) return destination->Snapshot();
  Turn::Holder turn(lost_turn_);
  const auto lost = lost_.Figures(session);
  return lost.has_value() ? absl::StatusOr<Progress>(*lost) : NoSession(session);
}

absl::Status Relocator::OnArrived(const std::string& session, const Progress& figures) {
  auto source = FindSource(session);
  if (source == nullptr) {
    Turn::Holder turn(lost_turn_);
    source = FindSource(session);
    if (source == nullptr) return lost_.Arrived(session);
  }
  return source->OnArrived(figures);
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
    case OwnershipMark::kOwner: {
      // Until its session says so, too, "never" may replace it (DestinationSession::TakeOwnership()).
      const auto live = FindDestination(session);
      return live != nullptr && live->state() == SessionState::kStopped ? RecordedOutcome::kPrepared
                                                                        : RecordedOutcome::kOwner;
    }
    case OwnershipMark::kNever: return RecordedOutcome::kNever;
    case OwnershipMark::kArrived:
      return RecordedOutcome::kCommitted;
    case OwnershipMark::kIncomplete: {
      // Nothing more is wanted of the source, once what is missing has been given up.
      const auto destination = FindDestination(session);
      const bool ended = destination == nullptr || IsFinal(destination->state());
      return ended ? RecordedOutcome::kCommitted : RecordedOutcome::kOwner;
    }
    case OwnershipMark::kCommitted: return RecordedOutcome::kCommitted;
  }
  return RecordedOutcome::kUnreadable;
}

}  // namespace postcopy
