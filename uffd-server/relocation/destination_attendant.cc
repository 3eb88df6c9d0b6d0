// What a DestinationSession does by itself, on its attendant's thread: finds out whether it is the
// owner, waits for the memory, commits. What becomes of it without its source is source_loss.cc's.
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "relocation/destination_session.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kAskSourceEvery{1'000};
constexpr milliseconds kRepeatArrivedEvery{500};
constexpr milliseconds kLookEvery{200};
// A source finds out where its memory has data within seconds.
constexpr std::chrono::seconds kMapOverdue{10};

}  // namespace

bool DestinationSession::SleepUnlessStopped(milliseconds time) {
  absl::MutexLock lock(&mutex_);
  return !mutex_.AwaitWithTimeout(absl::Condition(&stopping_), absl::FromChrono(time));
}

void DestinationSession::Attend() {
  AwaitHandOver();
  if (status_.state() == SessionState::kRunning) AwaitMemory();
  SaveTrace();
}

void DestinationSession::AwaitHandOver() {
  auto source = parts_.peers.ConnectSource(source_address_);
  // Both the source's word and this host's record are known, and the guest may stand still.
  if (taken_up_) TryHandOver();
  for (;;) {
    const SessionState seen = status_.state();
    if (seen == SessionState::kRunning || IsFinal(seen)) return;
    bool changed = false;
    for (auto waited = milliseconds::zero(); waited < kAskSourceEvery && !changed;
         waited += kLookEvery) {
      changed = Watch(seen, kLookEvery);
      if (!SleepUnlessStopped(milliseconds::zero())) return;
    }
    if (changed) continue;
    if (status_.state() == SessionState::kHandedOver) {
      if (!IsGivenUp()) ConsiderSourceLost();
      // Its VMM has not started it yet.
      if (status_.state() == SessionState::kHandedOver) TryHandOver();
      if (status_.state() == SessionState::kHandedOver) ConsiderGivingBack();
    } else if (IsGivenUp()) {
      TryHandOver();
    } else if (record_.process.HasEnded()) {
      GiveUp("its VMM has ended");
    } else {
      const auto recorded = source->Query(session_text_);
      // Without the source's word it stays as it is, and never runs.
      if (recorded.ok()) Follow(*recorded);
    }
  }
}

bool DestinationSession::Watch(SessionState seen, milliseconds time) {
  std::shared_ptr<VmmDriver> vmm;
  {
    absl::MutexLock lock(&mutex_);
    if (!owner_) vmm = opened_;
  }
  if (vmm == nullptr) return status_.WaitForChange(seen, time);
  const absl::Status started = vmm->AwaitStart(time);
  // Its connection has ended, with its process in all likelihood.
  if (absl::IsUnavailable(started)) return status_.WaitForChange(seen, time);
  if (started.ok()) {
    bool ours;
    {
      absl::MutexLock lock(&mutex_);
      ours = owner_;
    }
    // Whoever started it did not ask whether the source had let it go.
    if (!ours) GiveUp("somebody started the guest here before this host was its owner");
  }
  return status_.state() != seen;
}

void DestinationSession::Follow(RecordedOutcome recorded) {
  switch (recorded) {
    case RecordedOutcome::kHandedOver:
      return TryHandOver();
    case RecordedOutcome::kNone:
      return GiveUp("the source no longer knows the session");
    case RecordedOutcome::kRolledBack:
      return GiveUp("the source has rolled the session back");
    case RecordedOutcome::kPrepared:
    case RecordedOutcome::kNever:
    case RecordedOutcome::kOwner:
    case RecordedOutcome::kCommitted:
    case RecordedOutcome::kUnreadable:
      return;
  }
}

void DestinationSession::TryHandOver() {
  const auto taken = HandOver();
  const std::string error = taken.ok() ? "" : taken.status().ToString();
  if (!error.empty() && error != hand_over_error_)
    spdlog::warn("session {}, {}", session_text_, error);
  hand_over_error_ = error;
}

void DestinationSession::GiveUp(const std::string& reason) {
  const absl::Status given_up = Abort(reason);
  if (!given_up.ok()) spdlog::warn("session {}, {}", session_text_, given_up.ToString());
}

void DestinationSession::AwaitMemory() {
  if (!lost_text_.empty()) {  // given up before the guest could be started
    EndIncomplete();
    return EndLoadSettingsAtLast();
  }
  const auto resumed = std::chrono::steady_clock::now();
  std::optional<std::chrono::seconds> bulk_delay;
  if (!taken_up_) bulk_delay = parts_.faults.bulk_delay();
  for (;;) {
    if (bulk_delay.has_value() && std::chrono::steady_clock::now() - resumed >= *bulk_delay) {
      engine_->StartBulk();
      bulk_delay.reset();
    }
    const Engine::Wait waited = engine_->WaitComplete(kLookEvery);
    if (waited == Engine::Wait::kComplete) return Commit();
    if (waited == Engine::Wait::kStopped) return;
    if (record_.process.HasEnded()) return EndWithVmm();
    EndLoadSettings();
    NoteWhetherMemoryArrives();
    ConsiderSourceLost();
    if (IsFinal(status_.state())) return EndLoadSettingsAtLast();  // given up
    if (waited == Engine::Wait::kFailed && !SleepUnlessStopped(kLookEvery)) return;
  }
}

void DestinationSession::NoteWhetherMemoryArrives() {
  std::string error;
  if (const auto failure = engine_->failure()) {
    error = absl::StrCat("memory cannot arrive, the VM waits: ", failure->message);
  } else if (const auto interruption = engine_->interruption()) {
    error = absl::StrCat("the source cannot be reached, the VM waits where its memory is missing: ",
                         interruption->cause.message);
  } else if (const auto stall = engine_->stall()) {
    error = absl::StrCat("memory cannot arrive, the VM waits where it is missing, tried again: ",
                         stall->cause.message);
  } else if (const auto since = engine_->map_awaited_since();
             since.has_value() && std::chrono::steady_clock::now() - *since > kMapOverdue) {
    error = absl::StrCat("the source has not told for ", kMapOverdue.count(),
                         " s which of its memory has data: only what the VM touches arrives");
  }
  const std::string before = std::exchange(arrival_error_, error);
  if (before == error) return;
  status_.Update([&](Progress& progress) { progress.error = error; });
  if (before.empty()) {
    spdlog::error("session {}, vm {}, {}", session_text_, record_.name, error);
  } else if (error.empty()) {
    spdlog::info("session {}, vm {}, memory arrives again", session_text_, record_.name);
  }
}

void DestinationSession::Commit() {
  status_.NoteCommitted(NowUs());
  const auto finished = engine_->Finish();
  if (!finished.ok() && !record_.process.HasEnded()) {
    spdlog::error("session {}, {}", session_text_, finished.error().message);
  }
  // Before the release: then what is armed and owned may lack memory, and what is not has all of it or has
  // ended.
  NoteRecorded(Write(OwnershipMark::kArrived));
  device_.reset();  // the hook's duplicate is the last one then
  const absl::Status released = parts_.registry.Release(record_.name, session_);
  if (!released.ok()) spdlog::warn("vm {}, release: {}", record_.name, released.ToString());
  status_.Update([](Progress& progress) { progress.error.clear(); });
  // The monitor is free for others again, unless something is still set there for the load.
  const bool settings_ended = EndLoadSettings();
  {
    Turn::Holder turn(turn_);
    LetGoOfMemory();
    if (settings_ended) vmm_.reset();
  }
  // The VM needs its source no more: it may be relocated onwards while that has yet to be told.
  status_.Apply(SessionEvent::kAllPresent);
  const bool told = TellSource();
  // Before the record, by which the next daemon would know of nothing left to do.
  if (!settings_ended) EndLoadSettingsAtLast();
  if (told) NoteRecorded(Write(OwnershipMark::kCommitted));
}

bool DestinationSession::TellSource() {
  auto source = parts_.peers.ConnectSource(source_address_);
  Progress last = Snapshot();
  last.state = SessionState::kCommitted;
  // "Not found": it has told, and forgotten, what it had to.
  for (absl::Status told = source->Arrived(session_text_, last);
       !told.ok() && !absl::IsNotFound(told); told = source->Arrived(session_text_, last)) {
    if (!SleepUnlessStopped(kRepeatArrivedEvery)) return false;
  }
  return true;
}

void DestinationSession::NoteRecorded(const absl::Status& recorded) {
  if (!recorded.ok()) spdlog::error("session {}, {}", session_text_, recorded.ToString());
}

void DestinationSession::SaveTrace() {
  if (trace_ == nullptr) return;
  engine_->Stop();
  if (trace_->started() == TimePoint{}) return;  // the VM has stayed where it was
  const absl::Status written =
      parts_.traces->Write(record_.name, session_, layout_, page_bytes_, *trace_);
  if (!written.ok()) spdlog::warn("vm {}, {}", record_.name, written.ToString());
  trace_.reset();
}

}  // namespace postcopy
