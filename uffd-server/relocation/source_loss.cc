// What a DestinationSession does when its source is gone for good while memory is still missing: an
// operator or the daemon's policy decides, the attendant carries it out.
//
// What is missing is never replaced by zeros. That it was given up is on disk before anything is:
// from then on no daemon of this host, and no source that comes back, takes it for complete.
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "relocation/destination_session.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kLookForAnswerEvery{200};
// A process whose memory is gone has yet to be seen to end.
constexpr std::chrono::seconds kVmmEndsWithin{5};

std::string PagesText(uint64_t pages) {
  const auto bytes = static_cast<double>(pages * kPageBytes);
  if (pages * kPageBytes < (1 << 20))
    return absl::StrFormat("%d pages (%.0f KiB)", pages, bytes / 1024);
  return absl::StrFormat("%d pages (%.1f MiB)", pages, bytes / (1 << 20));
}

}  // namespace

absl::Status DestinationSession::CheckMemoryArrives() {
  const Progress now = status_.Snapshot();
  if (now.state != SessionState::kHandedOver && now.state != SessionState::kRunning) {
    return NothingArrives("source-lost", record_.name, now.state);
  }
  if (!now.committed_at_us.has_value()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("source-lost ", record_.name,
                                                    ": all of its memory is here, the source, ",
                                                    source_address_, ", has yet to be told"));
}

absl::StatusOr<std::string> DestinationSession::SourceLost(SourceLostAction action) {
  const absl::Status arrives = CheckMemoryArrives();
  if (!arrives.ok()) return arrives;
  {
    absl::MutexLock lock(&mutex_);
    if (loss_request_.has_value()) {
      return absl::FailedPreconditionError(
          absl::StrCat("source-lost ", record_.name, ": somebody else has asked for it just now"));
    }
    loss_request_ = LossRequest{action};
  }
  for (;;) {
    const absl::Status still_arrives = CheckMemoryArrives();
    absl::MutexLock lock(&mutex_);
    const auto answered = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return stopping_ || loss_request_->answer.has_value();
    };
    mutex_.AwaitWithTimeout(absl::Condition(&answered), absl::FromChrono(kLookForAnswerEvery));
    if (loss_request_->answer.has_value()) return *std::exchange(loss_request_, {})->answer;
    if (loss_request_->taken && !stopping_) continue;
    if (still_arrives.ok() && !stopping_) continue;
    loss_request_.reset();
    return still_arrives.ok() ? absl::UnavailableError("the daemon ends") : still_arrives;
  }
}

std::optional<SourceLostAction> DestinationSession::TakeLossRequest() {
  absl::MutexLock lock(&mutex_);
  if (!loss_request_.has_value() || loss_request_->taken) return std::nullopt;
  loss_request_->taken = true;
  return loss_request_->action;
}

std::optional<SourceLostAction> DestinationSession::DueByPolicy() {
  if (given_up_) return SourceLostAction::kPoison;
  if (!parts_.source_lost.action.has_value()) return std::nullopt;
  const auto interruption = engine_->interruption();
  if (!interruption.has_value()) return std::nullopt;
  const auto lasts = std::chrono::steady_clock::now() - interruption->since;
  return lasts >= parts_.source_lost.after ? parts_.source_lost.action : std::nullopt;
}

void DestinationSession::ConsiderSourceLost() {
  if (const auto asked = TakeLossRequest()) {
    auto answer = GiveUpSource(*asked);
    absl::MutexLock lock(&mutex_);
    // Nobody waits any more when the daemon ends.
    if (loss_request_.has_value()) loss_request_->answer = std::move(answer);
    return;
  }
  if (!lost_text_.empty()) return;  // all is done but the end
  const auto due = DueByPolicy();
  if (!due.has_value()) return;
  const auto given_up = GiveUpSource(*due);
  const std::string error = given_up.ok() ? "" : given_up.status().ToString();
  if (!error.empty() && error != loss_error_) spdlog::error("session {}, {}", session_text_, error);
  loss_error_ = error;
}

absl::StatusOr<std::string> DestinationSession::GiveUpSource(SourceLostAction action) {
  if (!given_up_ && !engine_->interruption().has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("source-lost ", record_.name, ": the source, ", source_address_,
                     ", is not out of reach: its memory is arriving"));
  }
  switch (action) {
    case SourceLostAction::kPoison:
      return PoisonMissing();
    case SourceLostAction::kKill:
      return EndVmWithoutSource();
  }
  return absl::InvalidArgumentError("source-lost: neither poison nor kill");
}

absl::StatusOr<std::string> DestinationSession::PoisonMissing() {
  const std::string operation = absl::StrCat("source-lost ", record_.name);
  if (!lost_text_.empty()) return lost_text_;
  if (!device_->CanPoison()) {
    return absl::FailedPreconditionError(
        absl::StrCat(operation, ": this host's kernel has no UFFDIO_POISON (Linux 6.6 or later)"));
  }
  if (!given_up_) {
    const absl::Status recorded = NothingDone(Write(OwnershipMark::kIncomplete));
    if (!recorded.ok()) {
      NoteRecorded(Write(OwnershipMark::kOwner));  // it may be there all the same
      return Prefixed(operation, recorded);
    }
    given_up_ = true;
  }
  const uint64_t missing_pages = engine_->Figures().missing_pages;
  const auto poisoned = engine_->PoisonMissing();
  if (!poisoned.ok()) {
    // It runs all the while, so the first poisoned page that it touches may end it before the last
    // one is poisoned.
    if (poisoned.error().code == ErrorCode::kUnavailable &&
        record_.process.WaitEnded(kVmmEndsWithin)) {
      return EndCrashed(absl::StrCat(
          "the source was lost: the VM has ended as in a crash: its VMM (process ", record_.pid(),
          ") ended while ", PagesText(missing_pages),
          " of its memory that never arrived were being poisoned, by SIGBUS if it touched them"));
    }
    return absl::InternalError(absl::StrCat(operation, ": ", poisoned.error().message,
                                            "; what is missing is missing still, and the VM waits "
                                            "there; it is tried again"));
  }
  if (*poisoned == 0) return "nothing was missing any more: all of its memory had come";
  const auto finished = engine_->Finish();
  if (!finished.ok() && !record_.process.HasEnded()) {
    spdlog::error("session {}, {}", session_text_, finished.error().message);
  }
  lost_text_ = absl::StrCat("the source was lost: ", PagesText(*poisoned), " of VM ", record_.name,
                            " never arrived and are poisoned; the VM runs on without them");
  if (status_.state() == SessionState::kRunning) EndIncomplete();
  return lost_text_;
}

void DestinationSession::EndIncomplete() {
  // The hook is not released: it keeps the session, by which this VM is refused as a source, and
  // keeps huge pages, which would replace what is poisoned, off its memory.
  {
    Turn::Holder turn(turn_);
    LetGoOfVmm();
  }
  status_.Apply(SessionEvent::kMemoryLost, lost_text_);
}

absl::StatusOr<std::string> DestinationSession::EndVmWithoutSource() {
  const std::string text =
      absl::StrCat("the source was lost: the VM has been ended as in a crash: its VMM (process ",
                   record_.pid(), ") was killed while ",
                   PagesText(engine_->Figures().missing_pages), " of its memory had not arrived");
  const absl::Status killed = KillVmm(record_);
  if (!killed.ok()) return Prefixed(absl::StrCat("source-lost ", record_.name), killed);
  return EndCrashed(text);
}

std::string DestinationSession::EndCrashed(const std::string& text) {
  engine_->Stop();
  {
    Turn::Holder turn(turn_);
    LetGoOfVmm();
  }
  status_.Apply(SessionEvent::kVmLost, text);
  return text;
}

}  // namespace postcopy
