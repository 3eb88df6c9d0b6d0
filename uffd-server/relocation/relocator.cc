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
  if (!sessions_.NoteRegistered(vm)) return;  // this daemon has, or had, its session
  absl::MutexLock lock(&mutex_);
  unsettled_.insert(vm);
  has_registered_ = true;
}

void Relocator::SettleLostSessions() {
  const auto to_do = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || !unsettled_.empty();
  };
  // Nothing that registers has to wait, only what could not be settled.
  const auto new_one = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || has_registered_;
  };
  for (;;) {
    std::set<std::string> vms;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&to_do));
      if (ending_) return;
      vms.swap(unsettled_);
      has_registered_ = false;
    }
    for (const std::string& vm : vms) SettleOne(vm);
    absl::MutexLock lock(&mutex_);
    if (!unsettled_.empty()) {
      mutex_.AwaitWithTimeout(absl::Condition(&new_one), absl::FromChrono(kSettleAgain));
    }
  }
}

void Relocator::SettleOne(const std::string& vm) {
  if (!sessions_.BeginSettling(vm)) return;
  Turn::Holder turn(lost_turn_);  // until what is taken up is in its place
  LostSessions::Settled settled = lost_.Settle(vm);
  if (!settled.done && settled.source == nullptr && settled.destination == nullptr) {
    absl::MutexLock lock(&mutex_);
    unsettled_.insert(vm);
  }
  sessions_.EndSettling(vm, std::move(settled));
}

absl::Status Relocator::Reserve(const std::string& vm) {
  const auto before = sessions_.Find(vm).source;
  if (before != nullptr && before->IsDead()) {
    const absl::Status cancelled = before->Cancel();  // tells the destination, too
    if (!cancelled.ok()) spdlog::warn("vm {}, {}", vm, cancelled.ToString());
  }
  return sessions_.Reserve(vm);
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
    const SessionTable::Place place = sessions_.Find(record.name);
    if (!place.Empty()) {
      vm.in_session = true;
      vm.progress =
          place.source != nullptr ? place.source->Snapshot() : place.destination->Snapshot();
    }
    // A session holds the monitor; QEMU answers one client.
    if (!place.Busy()) vm.guest_state = GuestStateText(record.qmp_path);
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
  if (session.ok()) {
    // Sessions of a VM that is here and can be relocated, and that have ended, have nothing more to say.
    for (const OwnershipRecord& record : earlier) {
      if (HasEnded(record.mark)) parts_.store.Remove(record.session);
    }
  }
  sessions_.Fill(options.vm, session.ok() ? *session : nullptr, nullptr);
  if (!session.ok()) return session.status();
  return (*session)->session();
}

absl::StatusOr<double> Relocator::Switch(const std::string& session) {
  const auto source = sessions_.FindSource(session);
  if (source == nullptr) return NoSession(session);
  return source->Switch();
}

absl::StatusOr<Progress> Relocator::Stats(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source != nullptr) return place.source->Snapshot();
  if (place.destination != nullptr) return place.destination->Snapshot();
  return NoSessionOf(vm);
}

absl::StatusOr<Progress> Relocator::WaitForChange(const std::string& vm, SessionState seen,
                                                  std::chrono::milliseconds timeout) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source != nullptr) {
    place.source->WaitForChange(seen, timeout);
    return place.source->Snapshot();
  }
  if (place.destination != nullptr) {
    place.destination->WaitForChange(seen, timeout);
    return place.destination->Snapshot();
  }
  return NoSessionOf(vm);
}

absl::Status Relocator::Cancel(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source != nullptr) return place.source->Cancel();
  if (place.destination != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("cancel ", vm, ": this host is the destination; cancel it at the source, ",
                     place.destination->Snapshot().peer));
  }
  return NoSessionOf(vm);
}

absl::Status Relocator::Hurry(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source != nullptr) return place.source->Hurry();
  if (place.destination != nullptr) return place.destination->Hurry();
  return NoSessionOf(vm);
}

absl::StatusOr<std::string> Relocator::SourceLost(const std::string& vm, SourceLostAction action) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.destination != nullptr) return place.destination->SourceLost(action);
  if (place.source == nullptr) return NoSessionOf(vm);
  return absl::FailedPreconditionError(
      absl::StrCat("source-lost ", vm, ": this host is the source; ask the destination, ",
                   place.source->destination()));
}

absl::Status Relocator::Release(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source == nullptr) return NoSessionOf(vm);
  if (place.source->state() != SessionState::kCommitted) {
    return absl::FailedPreconditionError(
        absl::StrCat("release ", vm, ": its relocation is ",
                     std::string(Name(place.source->state())), ", not committed"));
  }
  return place.source->Release();
}

absl::StatusOr<RecoveryReport> Relocator::Recover(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source != nullptr) return place.source->Recover();
  if (place.destination != nullptr) {
    const Progress progress = place.destination->Snapshot();
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
  if (session.ok()) {
    // A source that offers its VM anew has done with what came of the offers before.
    for (const OwnershipRecord& record : earlier) {
      const bool of_that_source = record.peer == offer.control_address;
      if (record.mark == OwnershipMark::kNever && of_that_source) parts_.store.Remove(record.session);
    }
  }
  sessions_.Fill(offer.vm, nullptr, session.ok() ? *session : nullptr);
  if (session.ok()) return absl::OkStatus();
  spdlog::info("offer of vm {} refused, cause {}", offer.vm, session.status().ToString());
  return Prefixed(absl::StrCat("VM ", offer.vm), session.status());
}

absl::Status Relocator::OnOpenIncoming(const std::string& session) {
  const auto destination = sessions_.FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->OpenIncoming();
}

absl::Status Relocator::OnStopped(const std::string& session) {
  const auto destination = sessions_.FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->SourceStopped();
}

absl::Status Relocator::OnLoad(const std::string& session, bool run,
                               std::string_view device_state) {
  const auto destination = sessions_.FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->Load(run, device_state);
}

absl::StatusOr<int64_t> Relocator::OnHandOver(const std::string& session) {
  auto destination = sessions_.FindDestination(session);
  if (destination == nullptr) {
    Turn::Holder turn(lost_turn_);
    destination = sessions_.FindDestination(session);
    if (destination == nullptr) return lost_.HandOver(session);
  }
  return destination->HandOver();
}

absl::Status Relocator::OnAbort(const std::string& session, std::string_view reason) {
  auto destination = sessions_.FindDestination(session);
  if (destination == nullptr) {
    Turn::Holder turn(lost_turn_);
    destination = sessions_.FindDestination(session);
    if (destination == nullptr) return lost_.Abort(session, reason);
  }
  return destination->Abort(std::string(reason));
}

absl::Status Relocator::OnHurry(const std::string& session) {
  const auto destination = sessions_.FindDestination(session);
  return destination == nullptr ? NoSession(session) : destination->Hurry();
}

absl::StatusOr<Progress> Relocator::OnFigures(const std::string& session) {
  const auto destination = sessions_.FindDestination(session);
  if (destination != nullptr) return destination->Snapshot();
  Turn::Holder turn(lost_turn_);
  const auto lost = lost_.Figures(session);
  return lost.has_value() ? absl::StatusOr<Progress>(*lost) : NoSession(session);
}

absl::Status Relocator::OnArrived(const std::string& session, const Progress& figures) {
  auto source = sessions_.FindSource(session);
  if (source == nullptr) {
    Turn::Holder turn(lost_turn_);
    source = sessions_.FindSource(session);
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
    const bool live = sessions_.FindSource(session) != nullptr ||
                      sessions_.FindDestination(session) != nullptr;
    return live ? RecordedOutcome::kPrepared : RecordedOutcome::kNone;
  }
  switch (record->mark) {
    case OwnershipMark::kPrepared:
      return sessions_.MayHandOver(session, record->vm) ? RecordedOutcome::kPrepared
                                                        : RecordedOutcome::kNone;
    case OwnershipMark::kOffered: return RecordedOutcome::kPrepared;
    case OwnershipMark::kHandedOver: return RecordedOutcome::kHandedOver;
    case OwnershipMark::kRolledBack: return RecordedOutcome::kNone;
    case OwnershipMark::kOwner: {
      // Until its session says so, too, "never" may replace it (DestinationSession::TakeOwnership()).
      const auto live = sessions_.FindDestination(session);
      return live != nullptr && live->state() == SessionState::kStopped ? RecordedOutcome::kPrepared
                                                                        : RecordedOutcome::kOwner;
    }
    case OwnershipMark::kNever: return RecordedOutcome::kNever;
    case OwnershipMark::kArrived:
      return RecordedOutcome::kCommitted;
    case OwnershipMark::kIncomplete: {
      // Nothing more is wanted of the source, once what is missing has been given up.
      const auto destination = sessions_.FindDestination(session);
      const bool ended = destination == nullptr || IsFinal(destination->state());
      return ended ? RecordedOutcome::kCommitted : RecordedOutcome::kOwner;
    }
    case OwnershipMark::kCommitted: return RecordedOutcome::kCommitted;
  }
  return RecordedOutcome::kUnreadable;
}

}  // namespace postcopy
