#include "relocation/relocator.h"

#include <spdlog/spdlog.h>

#include <exception>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "relocation/check.h"

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
  return absl::NotFoundError(absl::StrCat("there is no session ", session));
}

}  // namespace

Relocator::Relocator(DaemonParts parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Relocator>> Relocator::Start(DaemonParts parts) {
  std::unique_ptr<Relocator> relocator(new Relocator(std::move(parts)));
  relocator->NoteToSettle();
  auto settler = DaemonThread::Start("pc-settler", [raw = relocator.get()] {
    raw->SettleLostSessions();
  });
  if (!settler.ok()) return settler.status();
  relocator->settler_ = *std::move(settler);
  relocator->parts_.registry.SetObserver(
      [raw = relocator.get()](const std::string& vm) { raw->NoteRegistered(vm); });
  return relocator;
}

Relocator::~Relocator() {
  parts_.registry.SetObserver({});
  {
    absl::MutexLock lock(&mutex_);
    ending_ = true;
  }
  settler_.Join();
}

absl::Status Relocator::NoSessionOf(const std::string& vm) {
  const bool known = parts_.registry.Find(vm).ok();
  return absl::NotFoundError(
      known ? absl::StrCat("VM ", vm, " takes part in no relocation on this host")
            : absl::StrCat("no VM named ", vm, " has registered with this host's daemon, nor does it "
                           "know a relocation of one"));
}

void Relocator::NoteToSettle() {
  const auto to_settle = lost_.ToSettle();
  absl::MutexLock lock(&mutex_);
  records_known_ = to_settle.ok();
  if (!to_settle.ok()) return;
  for (const std::string& vm : *to_settle) unsettled_.insert(vm);
}

void Relocator::NoteRegistered(const std::string& vm) {
  absl::MutexLock lock(&mutex_);
  // First: a place that waits to be settled must not be forgotten for want of memory.
  const bool is_new = unsettled_.insert(vm).second;
  if (sessions_.NoteRegistered(vm)) {
    has_registered_ = true;
  } else if (is_new) {  // this daemon has, or had, its session
    unsettled_.erase(vm);
  }
}

void Relocator::SettleLostSessions() {
  const auto to_do = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || !unsettled_.empty() || !records_known_;
  };
  // Nothing that registers has to wait, only what could not be settled.
  const auto new_one = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return ending_ || has_registered_;
  };
  for (;;) {
    std::set<std::string> vms;
    bool records_known;
    {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&to_do));
      if (ending_) return;
      vms.swap(unsettled_);
      has_registered_ = false;
      records_known = records_known_;
    }
    if (!records_known) NoteToSettle();
    for (const std::string& vm : vms) SettleOne(vm);
    absl::MutexLock lock(&mutex_);
    if (!unsettled_.empty() || !records_known_) {
      mutex_.AwaitWithTimeout(absl::Condition(&new_one), absl::FromChrono(kSettleAgain));
    }
  }
}

void Relocator::SettleOne(const std::string& vm) {
  if (!sessions_.BeginSettling(vm)) return;
  Turn::Holder turn(lost_turn_);  // until what is taken up is in its place
  LostSessions::Settled settled;
  try {
    settled = lost_.Settle(vm);
  } catch (const std::exception& error) {  // out of memory, in practice
    spdlog::error("vm {}, settle its last session: {}; it is retried", vm, error.what());
  }
  if (!settled.done && settled.source == nullptr && settled.destination == nullptr) {
    absl::MutexLock lock(&mutex_);
    unsettled_.insert(vm);
  }
  sessions_.EndSettling(vm, std::move(settled));
}

absl::StatusOr<SessionTable::Reservation> Relocator::Reserve(const std::string& vm) {
  const auto before = sessions_.Find(vm).source;
  if (before != nullptr && before->IsDead()) {
    const absl::Status cancelled = before->Cancel();  // tells the destination, too
    if (!cancelled.ok()) spdlog::warn("vm {}, {}", vm, cancelled.ToString());
  }
  return sessions_.Reserve(vm);
}

absl::StatusOr<std::string> Relocator::Prepare(const PrepareOptions& options) {
  const absl::Status known = parts_.registry.Find(options.vm).status();
  if (!known.ok()) return known;
  auto place = Reserve(options.vm);
  if (!place.ok()) return place.status();
  const auto earlier = parts_.store.ReadAll(options.vm);
  auto session = SourceSession::Prepare(parts_, options);
  if (session.ok() && earlier.ok()) {
    // Sessions of a VM that is here and can be relocated, and that have ended, have nothing more to say.
    for (const OwnershipRecord& record : earlier->readable) {
      if (HasEnded(record.mark)) parts_.store.Remove(record.session, record.role);
    }
  }
  if (!session.ok()) return session.status();
  place->Fill(*session);
  return (*session)->session();
}

absl::StatusOr<std::vector<Finding>> Relocator::Check(const PrepareOptions& options) {
  if (sessions_.Find(options.vm).Busy()) {
    return std::vector<Finding>{{"source", "it takes part in another relocation already"}};
  }
  auto findings = CheckBothEnds(parts_, options);
  if (findings.ok() || absl::IsNotFound(findings.status())) return findings;
  return Prefixed(absl::StrCat("destination ", options.destination), findings.status());
}

absl::StatusOr<std::vector<std::string>> Relocator::OnCheck(const Offer& offer) {
  if (sessions_.Find(offer.vm).Busy()) {
    return std::vector<std::string>{"it takes part in another relocation already"};
  }
  return CheckWaitingVm(parts_, offer);
}

absl::StatusOr<std::optional<double>> Relocator::Switch(const std::string& session) {
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
    const Progress progress = place.destination->Snapshot();
    const std::string why =
        IsFinal(progress.state) ? absl::StrCat("its session is ", std::string(Name(progress.state)))
        : IsAfterSwitch(progress.state)
            ? "too late, it runs here since the switch; relocate it back when it has arrived"
            : absl::StrCat("this host is the destination; cancel it at the source, ", progress.peer);
    return absl::FailedPreconditionError(absl::StrCat("cancel ", vm, ": ", why));
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

absl::StatusOr<std::string> Relocator::DestinationLost(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source != nullptr) return place.source->DestinationLost();
  if (place.destination == nullptr) return NoSessionOf(vm);
  return absl::FailedPreconditionError(
      absl::StrCat("destination-lost ", vm, ": this host is the destination; ask the source, ",
                   place.destination->source()));
}

absl::Status Relocator::Release(const std::string& vm) {
  const SessionTable::Place place = sessions_.Find(vm);
  if (place.source == nullptr) return NoSessionOf(vm);
  if (place.source->state() != SessionState::kCommitted) {
    return absl::FailedPreconditionError(
        absl::StrCat("release ", vm, ": its relocation is ",
                     std::string(Name(place.source->state())), ", not committed"));
  }
  if (place.source->HasVmmEnded()) {
    return absl::FailedPreconditionError(
        absl::StrCat("release ", vm, ": its QEMU here has ended already; only `relocate "
                     "--keep-source` keeps one"));
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

absl::Status Relocator::OnOffer(const Offer& offer, const HasGone& has_gone) {
  const auto id = SessionId::Parse(offer.session);
  if (offer.vm == offer.source_vm && id.has_value() && parts_.page_server.Serves(*id)) {
    return absl::FailedPreconditionError(
        absl::StrCat("VM ", offer.vm, ": source and destination are the same host; to move it into "
                     "another QEMU there, start that under another name and say --as NAME"));
  }
  if (sessions_.FindDestination(offer.session) != nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("VM ", offer.vm, ": session ", offer.session, " is known here already"));
  }
  auto place = Reserve(offer.vm);
  if (!place.ok()) return place.status();
  const auto earlier = parts_.store.ReadAll(offer.vm);
  auto session = DestinationSession::Prepare(parts_, offer, has_gone);
  if (session.ok() && earlier.ok()) {
    // A source that offers its VM anew has done with what came of the offers before.
    for (const OwnershipRecord& record : earlier->readable) {
      const bool of_that_source = record.peer == offer.control_address;
      if (record.mark == OwnershipMark::kNever && of_that_source) parts_.store.Remove(record.session, record.role);
    }
  }
  if (session.ok()) {
    place->Fill(*session);
    return absl::OkStatus();
  }
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

absl::StatusOr<Resumed> Relocator::OnHandOver(const std::string& session) {
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

absl::Status Relocator::OnConfirmFenced(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("confirm: malformed session id");
  const auto record = parts_.store.Read(*id, SessionRole::kSource);
  if (!record.ok()) return record.status();
  if (record->mark != OwnershipMark::kHandedOver) {
    return absl::FailedPreconditionError(absl::StrCat("the source has recorded that it is ",
                                                      std::string(NameOf(record->mark))));
  }
  const auto vm = parts_.registry.Find(record->vm);
  if (!vm.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the source's VMM is gone: ", std::string(vm.status().message())));
  }
  if (vm->process.HasEnded()) return absl::FailedPreconditionError("the source's VMM has ended");
  if (vm->fenced_for != *id) {
    return absl::FailedPreconditionError("the source's VMM is not fenced: it may have run there since");
  }
  return absl::OkStatus();
}

absl::StatusOr<RecordedOutcome> Relocator::OnQuery(const std::string& session,
                                                   SessionRole role) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("query: malformed session id");
  const auto record = parts_.store.Read(*id, role);
  if (!record.ok()) {
    if (record.status().code() != absl::StatusCode::kNotFound) return RecordedOutcome::kUnreadable;
    const bool live = role == SessionRole::kSource
                          ? sessions_.FindSource(session) != nullptr
                          : sessions_.FindDestination(session) != nullptr;
    return live ? RecordedOutcome::kPrepared : RecordedOutcome::kNone;
  }
  switch (record->mark) {
    case OwnershipMark::kPrepared:
      return sessions_.MayHandOver(session, record->vm) ? RecordedOutcome::kPrepared
                                                        : RecordedOutcome::kNone;
    case OwnershipMark::kOffered: return RecordedOutcome::kPrepared;
    case OwnershipMark::kHandedOver: return RecordedOutcome::kHandedOver;
    case OwnershipMark::kRolledBack: return RecordedOutcome::kRolledBack;
    case OwnershipMark::kOwner: {
      // Until the guest was started "never" may replace it.
      const auto live = sessions_.FindDestination(session);
      return live != nullptr && live->AwaitsStart() ? RecordedOutcome::kPrepared
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
