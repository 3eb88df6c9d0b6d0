// How a DestinationSession that is, or should become, the owner gives the VM back: its record cannot
// be written, or its VMM refuses to start the guest.
//
// The guest has not run here then. The VMM is dead before the source hears of it, so that nothing
// that is read or started later can run it twice (docs/model).
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "relocation/destination_session.h"

namespace postcopy {
bool DestinationSession::IsGivenUp() {
  absl::MutexLock lock(&mutex_);
  return aborting_;
}

bool DestinationSession::AwaitsStart() {
  absl::MutexLock lock(&mutex_);
  return aborting_ || refused_ || status_.state() == SessionState::kStopped;
}

absl::Status DestinationSession::WatchLoaded() {
  auto vmm = parts_.connect_vmm(record_);
  if (!vmm.ok()) return vmm.status();
  const absl::Status paused = (*vmm)->ExpectPaused();
  if (!paused.ok()) return paused;
  UseVmm(*std::move(vmm));
  may_give_back_ = true;
  absl::MutexLock lock(&mutex_);
  opened_ = vmm_;
  return absl::OkStatus();
}

absl::Status DestinationSession::GiveBack(const std::string& reason) {
  bool used_up;
  {
    absl::MutexLock lock(&mutex_);
    owner_ = false;
    aborting_ = true;
    used_up = used_up_;
  }
  if (used_up) {
    const absl::Status killed = KillVmm(record_);
    if (!killed.ok()) {
      return absl::InternalError(absl::StrCat(
          reason, "; its VMM there cannot be seen dead, so the VM stays stopped on both hosts: ",
          std::string(killed.message())));
    }
  }
  const absl::Status never = EndAsNever(reason);
  if (never.ok()) return absl::AbortedError(absl::StrCat("the destination gives it back: ", reason));
  return used_up ? DeadNotRecordedError(absl::StrCat(reason, "; its VMM there is dead, and that "
                                                             "cannot be recorded there: ",
                                                     std::string(never.message())))
                 : never;
}

absl::Status DestinationSession::NotStarted(const absl::Status& cause) {
  const bool refused = absl::IsFailedPrecondition(cause);
  if (!refused) may_give_back_ = false;  // it may be started yet
  {
    absl::MutexLock lock(&mutex_);
    refused_ = refused;
  }
  if (!refused) refused_since_.reset();
  if (refused && !refused_since_.has_value()) refused_since_ = std::chrono::steady_clock::now();
  refusal_ = absl::StrCat("the destination owns the VM and its VMM (process ", record_.pid(),
                          refused ? ") refuses to start it: " : ") has not started it yet: ",
                          std::string(cause.message()), "; it is tried again every second");
  const std::string error =
      why_kept_.empty() ? refusal_ : absl::StrCat(refusal_, "; ", why_kept_);
  status_.Update([&](Progress& progress) { progress.error = error; });
  return absl::InternalError(error);
}

void DestinationSession::ConsiderGivingBack() {
  {
    Turn::Holder turn(turn_);
    const bool due = refused_since_.has_value() &&
                     std::chrono::steady_clock::now() - *refused_since_ >= parts_.start_tries;
    if (!due || status_.state() != SessionState::kHandedOver || IsGivenUp()) return;
    if (!may_give_back_) {
      why_kept_ = "whether it ran here is not known, so it cannot be given back";
      return;
    }
  }
  // Not with the turn: the source may be asking for this hand-over meanwhile.
  const absl::Status fenced = parts_.peers.ConnectSource(source_address_)->ConfirmFenced(session_text_);
  Turn::Holder turn(turn_);
  if (!refused_since_.has_value() || status_.state() != SessionState::kHandedOver) return;
  if (!fenced.ok()) {
    why_kept_ = absl::StrCat("it cannot be given back now: ", std::string(fenced.message()));
    return;
  }
  const std::string why = refusal_;
  const absl::Status killed = KillVmm(record_);
  if (!killed.ok()) {
    why_kept_ = absl::StrCat("it cannot be given back: ", std::string(killed.message()));
    return;
  }
  // Only now nobody can start it any more.
  if (vmm_ == nullptr || vmm_->MayHaveRun()) {
    engine_->Stop();
    LetGoOfVmm();
    status_.Apply(SessionEvent::kVmLost,
                  absl::StrCat(why, "; somebody else started it there, and it was ended"));
    return;
  }
  const absl::Status given_back = GiveBack(why);
  if (!absl::IsAborted(given_back)) {
    spdlog::error("session {}, {}", session_text_, given_back.ToString());
  }
}

}  // namespace postcopy
