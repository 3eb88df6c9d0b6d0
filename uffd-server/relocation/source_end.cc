// How a SourceSession whose VM has left ends: what it had is let go, its VMM told to quit or kept.
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "relocation/source_session.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kVmmEndTimeout{10'000};

}  // namespace

absl::Status SourceSession::OnArrived(const Progress& figures) {
  // Not through the turn: a hand-over whose answer was lost may still be trying.
  // In doubt: the record was there after all, or the destination would not have taken over.
  if (status_.state() == SessionState::kUnknown) status_.Apply(SessionEvent::kHandOver);
  // It failed because the guest was started here; the destination had all by then.
  if (status_.state() == SessionState::kFailed) return Write(OwnershipMark::kCommitted);
  if (!IsAfterSwitch(status_.state())) {
    return absl::FailedPreconditionError(
        absl::StrCat("arrived: the session is ", std::string(Name(status_.state()))));
  }
  if (status_.state() == SessionState::kCommitted) return absl::OkStatus();
  if (!Decide(Decision::kArrived)) {
    return absl::FailedPreconditionError(
        absl::StrCat("arrived: an operator of the source has taken VM ", options_.vm, " back"));
  }
  status_.Update([&](Progress& progress) {
    const Progress mine = progress;
    progress = figures;
    progress.vm = mine.vm;
    progress.role = mine.role;
    progress.state = mine.state;
    progress.peer = mine.peer;
    progress.stopped_at_us = mine.stopped_at_us;
    progress.downtime_ms = mine.downtime_ms;
  });
  // In this order: a daemon that finds the record written has nothing left to let go.
  LetGo();
  const absl::Status recorded = Write(OwnershipMark::kCommitted);
  if (!recorded.ok()) return recorded;
  // The destination's call and this side's own question may come to it at once.
  if (!status_.Apply(SessionEvent::kAllPresent) && status_.state() != SessionState::kCommitted) {
    return absl::FailedPreconditionError(
        absl::StrCat("arrived: the session is ", std::string(Name(status_.state()))));
  }
  return absl::OkStatus();
}

void SourceSession::LetGo() {
  SetWatched(nullptr);
  parts_.page_server.Remove(session_);
  if (options_.keep_source) return FreeMonitor();
  const absl::Status released = Release();
  if (released.ok()) return;
  spdlog::warn("vm {}, {}", options_.vm, released.ToString());
  // The session ends all the same, so this is where the operator sees that the VMM lives on.
  status_.Update([&](Progress& progress) {
    progress.error = absl::StrCat("its VMM here (process ", record_.pid(), ") could not be ended: ",
                                  std::string(released.message()), "; `postcopyctl release ",
                                  options_.vm, "` tries again");
  });
}

void SourceSession::FreeMonitor() {
  SetWatched(nullptr);
  Turn::Holder turn(turn_);
  if (vmm_ == nullptr) return;
  const absl::Status restored = vmm_->RestoreSettings();
  if (!restored.ok()) spdlog::warn("vm {}, {}", options_.vm, restored.ToString());
  vmm_.reset();
}

absl::Status SourceSession::Release() {
  Turn::Holder turn(turn_);
  if (record_.process.HasEnded()) return absl::OkStatus();
  if (auto connected = ConnectVmm(); !connected.ok()) {
    return Prefixed(absl::StrCat("end the VMM of ", options_.vm), connected);
  }
  // Behind a fence QEMU could not empty its RAM file.
  if (vmm_->EmptiesMemoryAtEnd()) {
    absl::Status ready = vmm_->RestoreSettings();
    if (ready.ok()) ready = LiftFence();
    if (!ready.ok()) spdlog::warn("vm {}, RAM file kept, {}", options_.vm, ready.ToString());
  }
  const absl::Status quit = vmm_->Quit();
  vmm_.reset();
  if (!quit.ok()) return Prefixed(absl::StrCat("end the VMM of ", options_.vm), quit);
  if (!record_.process.WaitEnded(kVmmEndTimeout)) {
    return absl::DeadlineExceededError(
        absl::StrCat("end the VMM of ", options_.vm, ": process ", record_.pid(), " lives on"));
  }
  status_.Update([](Progress& progress) {
    if (progress.state == SessionState::kCommitted) progress.error.clear();  // that it could not be ended
  });
  return absl::OkStatus();
}

void SourceSession::EndAsThere(const std::string& error) {
  const auto recorded = destination_->Query(session_text_);
  const bool runs_on = recorded.ok() && *recorded == RecordedOutcome::kCommitted;
  if (IsFinal(status_.state())) return;
  if (runs_on) {
    // In this order, as where all has arrived: a daemon that finds the record written has nothing left
    // to let go.
    LetGo();
    const absl::Status committed = Write(OwnershipMark::kCommitted);
    if (!committed.ok()) spdlog::error("session {}, {}", session_text_, committed.ToString());
  }
  if (!status_.Apply(SessionEvent::kVmLost, error) || runs_on) return;
  parts_.page_server.Remove(session_);
  FreeMonitor();
}

}  // namespace postcopy
