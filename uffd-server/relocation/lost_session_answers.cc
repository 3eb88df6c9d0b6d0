// What LostSessions says to others of a session that this daemon does not have: to its operator, and to the
// daemon of the other host.
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "relocation/lost_hook.h"
#include "relocation/lost_sessions.h"

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

std::string Crashed(const OwnershipRecord& record) {
  return absl::StrCat("the VM has ended as in a crash: its VMM (process ", record.vmm.pid,
                      ") ended while its memory was arriving");
}

}  // namespace

bool LostSessions::StayedAtSource(const OwnershipRecord& record) {
  if (record.mark != OwnershipMark::kOwner || !HasEnded(record.vmm)) return false;
  const auto recorded = parts_.peers.ConnectSource(record.peer)->Query(record.session.ToString());
  if (!recorded.ok() || *recorded != RecordedOutcome::kRolledBack) return false;
  const absl::Status never = NeverRun(record, "it was given back, and goes on at the source");
  if (!never.ok()) spdlog::warn("vm {}, lost, {}", record.vm, never.ToString());
  return never.ok();
}

absl::StatusOr<RecoveryReport> LostSessions::Recover(const std::string& vm) {
  const auto records = parts_.store.ReadAll(vm);
  if (!records.ok()) return Prefixed(absl::StrCat("recover ", vm), records.status());
  const auto registered = parts_.registry.Find(vm);
  const std::string unrecorded = UnrecordedText(vm, registered, *records);
  if (!unrecorded.empty()) return RecoveryReport{SessionState::kUnknown, "unknown", unrecorded};
  const OwnershipRecord* const governing = Governing(*records, registered);
  if (governing == nullptr) {
    return absl::NotFoundError(absl::StrCat("VM ", vm, " takes part in no relocation on this host"));
  }
  const OwnershipRecord& last = *governing;
  switch (last.mark) {
    case OwnershipMark::kRolledBack:
      return RecoveryReport{
          SessionState::kRolledBack, "source",
          last.to_resume && !HasEnded(last.vmm)
              ? absl::StrCat("VM ", vm, " stays here and is yet to be resumed: ", WhyNot(vm, last.vmm.pid))
              : absl::StrCat("VM ", vm, " stayed here; nothing needs to be recovered")};
    case OwnershipMark::kOwner:
      if (StayedAtSource(last)) {
        return RecoveryReport{SessionState::kRolledBack, "source",
                              absl::StrCat("VM ", vm, " never ran here; it stayed at ", last.peer)};
      }
      return RecoveryReport{
          SessionState::kHandedOver, "destination",
          absl::StrCat("VM ", vm, " is owned by this host since session ", last.session.ToString(),
                       HasEnded(last.vmm) ? ", and has ended as in a crash"
                                      : absl::StrCat("; it is not taken up yet: ", WhyNot(vm, last.vmm.pid)),
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
    case OwnershipMark::kOffered: return RecoverOffered(last);
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
                     WhyNot(vm, last.vmm.pid))};
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

RecoveryReport LostSessions::RecoverOffered(const OwnershipRecord& record) {
  const std::string offered =
      absl::StrCat("VM ", record.vm, " was offered by ", record.peer, " in session ",
                   record.session.ToString());
  const auto there = parts_.peers.ConnectSource(record.peer)->Query(record.session.ToString());
  if (!there.ok()) {
    return {SessionState::kUnknown, "unknown",
            absl::StrCat(offered, ", and this daemon has lost the session; ", record.peer,
                         " cannot be asked what became of it (", std::string(there.status().message()),
                         "). By this record it never ran here; recover it there")};
  }
  switch (*there) {
    case RecordedOutcome::kCommitted:
      return {SessionState::kCommitted, "destination",
              absl::StrCat(offered, ", which has let it go since: its relocation to this host was "
                           "committed, and this host's record is older than that")};
    case RecordedOutcome::kHandedOver:
      return {SessionState::kHandedOver, "destination",
              absl::StrCat(offered, " and handed over to this host; it is not taken up yet: ",
                           WhyNot(record.vm, record.vmm.pid))};
    case RecordedOutcome::kPrepared:
    case RecordedOutcome::kNone:
    case RecordedOutcome::kRolledBack:
    case RecordedOutcome::kNever:
    case RecordedOutcome::kOwner:
    case RecordedOutcome::kUnreadable: break;
  }
  return {SessionState::kUnknown, "nobody yet",
          absl::StrCat(offered, ", and this daemon has lost the session: by its record it never ran "
                       "here; recover it there")};
}

std::string LostSessions::WhyNot(const std::string& vm, int vmm_pid) const {
  const std::string away = parts_.registry.Find(vm).ok() ? "" : WhyHookIsAway(vmm_pid);
  if (!away.empty()) return away;
  const auto said = said_.find(vm);
  return said != said_.end() ? said->second
                             : "its VMM has not registered, as its hook does within half a second";
}

absl::Status LostSessions::Abort(const std::string& session, std::string_view reason) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("abort: malformed session id");
  const auto record = parts_.store.Read(*id, SessionRole::kDestination);
  if (!record.ok()) return Unreadable(record.status());
  switch (record->mark) {
    case OwnershipMark::kOwner:
    case OwnershipMark::kArrived:
    case OwnershipMark::kIncomplete:
    case OwnershipMark::kCommitted:
      return absl::FailedPreconditionError("the destination owns the VM and cannot give it back");
    case OwnershipMark::kPrepared:
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kRolledBack:
      return absl::FailedPreconditionError("that daemon is the source of the session");
    case OwnershipMark::kOffered:
    case OwnershipMark::kNever: break;
  }
  return NeverRun(*record, reason);
}

absl::StatusOr<Resumed> LostSessions::HandOver(const std::string& session) {
  const auto id = SessionId::Parse(session);
  if (!id.has_value()) return absl::InvalidArgumentError("hand-over: malformed session id");
  const auto record = parts_.store.Read(*id, SessionRole::kDestination);
  if (!record.ok()) return Unreadable(record.status());
  switch (record->mark) {
    case OwnershipMark::kOwner:
      if (!HasEnded(record->vmm)) return BeingTakenUp();
      return absl::DataLossError(Crashed(*record));
    case OwnershipMark::kArrived:
    case OwnershipMark::kIncomplete:
    case OwnershipMark::kCommitted: return Resumed{};
    case OwnershipMark::kNever: {
      const absl::Status durable = parts_.store.Write(*record);
      return durable.ok() ? absl::AbortedError("the destination has recorded that it never runs this VM")
                          : Unreadable(durable);
    }
    case OwnershipMark::kPrepared:
    case OwnershipMark::kHandedOver:
    case OwnershipMark::kRolledBack:
      return absl::FailedPreconditionError("that daemon is the source of the session");
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
  const auto record = parts_.store.Read(*id, SessionRole::kDestination);
  if (!record.ok() || record->mark != OwnershipMark::kOwner || !HasEnded(record->vmm)) {
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
  auto record = parts_.store.Read(*id, SessionRole::kSource);
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
