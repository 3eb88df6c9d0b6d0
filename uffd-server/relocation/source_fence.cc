// What keeps a guest from running at the source while another host owns it: the fence around its RAM, and
// an eye on its VMM.
//
// The fence makes a start by another client of the monitor harmless. Where there is none (an older hook)
// such a start is seen, and the memory, which changes then, is served no longer.
#include <spdlog/spdlog.h>

#include "absl/strings/str_cat.h"
#include "relocation/source_session.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

// Its answer is awaited while the guest stands still.
constexpr milliseconds kFenceTimeout{5'000};
// For how long the watch keeps a monitor that is no longer its own to watch.
constexpr milliseconds kWatchSlice{200};
// From the end of a VMM's connection to the end of its process, where one follows from the other.
constexpr milliseconds kLostVmmEnds{2'000};
// From a start behind the fence to the VMM's end.
constexpr milliseconds kFencedStartEnds{2'000};

}  // namespace

absl::Status SourceSession::BeginFence() {
  auto fence = parts_.registry.BeginFence(options_.vm, session_, ram_addresses_);
  if (absl::IsUnimplemented(fence.status())) {
    spdlog::warn("session {}, {}: if its guest is started here after the hand-over it runs twice",
                 session_text_, std::string(fence.status().message()));
    return absl::OkStatus();
  }
  if (!fence.ok()) return Unfenced(fence.status());
  fence_ = *std::move(fence);
  fence_begun_ = true;
  return absl::OkStatus();
}

absl::Status SourceSession::AwaitFence() {
  if (!fence_.has_value()) return absl::OkStatus();
  const absl::Status laid = parts_.registry.AwaitFence(*fence_, kFenceTimeout);
  if (!laid.ok()) return Unfenced(laid);
  fence_.reset();
  fenced_ = true;
  parts_.faults.Reach("fenced");
  return absl::OkStatus();
}

absl::Status SourceSession::Unfenced(const absl::Status& cause) {
  fence_.reset();
  if (!record_.process.WaitEnded(kLostVmmEnds)) return Prefixed("fence the source", cause);
  spdlog::info("session {}, vm {}, its VMM has ended, so there is nothing to fence", session_text_,
               options_.vm);
  return absl::OkStatus();
}

absl::Status SourceSession::LookForStart() {
  // In this order: what happened before the answer has been reported before it.
  const auto state = vmm_->QueryState();
  const absl::Status started = vmm_->AwaitStart(milliseconds(0));
  if (absl::IsDeadlineExceeded(started) && state.ok() && *state == GuestState::kSent) {
    return absl::OkStatus();
  }
  // Its connection may end before either of the two, or between them.
  const absl::Status failed = !state.ok()                        ? state.status()
                              : absl::IsUnavailable(started) ? started
                                                             : absl::OkStatus();
  if (failed.ok()) return StartedByAnother();
  if (!record_.process.WaitEnded(kLostVmmEnds)) {
    return Prefixed("look for a start at the source", failed);
  }
  // All that it has reported is known now.
  return vmm_->MayHaveRun() ? StartedByAnother() : absl::OkStatus();
}

absl::Status SourceSession::StartedByAnother() {
  return absl::FailedPreconditionError(
      "source: another client of its monitor has started the VM during the switch, so what was taken of "
      "it is not its state any more");
}

absl::Status SourceSession::LiftFence() {
  if (!fence_begun_) return absl::OkStatus();
  const absl::Status lifted = parts_.registry.Unfence(options_.vm, session_);
  if (!lifted.ok()) return Prefixed("lift the fence", lifted);
  fence_begun_ = false;
  fenced_ = false;
  return absl::OkStatus();
}

void SourceSession::FenceAgain() {
  if (record_.fenced_for == session_) {
    fence_begun_ = true;
    fenced_ = true;
    return;
  }
  absl::Status laid = BeginFence();
  if (laid.ok()) laid = AwaitFence();
  if (!laid.ok()) spdlog::warn("session {}, vm {}, {}", session_text_, options_.vm, laid.ToString());
}

// --- the watch -----------------------------------------------------------------------------------

absl::Status SourceSession::StartWatching() {
  auto watcher = QuietThread::Start("pc-watch", [this] { Watch(); });
  if (!watcher.ok()) return absl::ResourceExhaustedError(watcher.error().message);
  watcher_.emplace(std::move(*watcher));
  return absl::OkStatus();
}

void SourceSession::SetWatched(std::shared_ptr<VmmDriver> vmm) {
  absl::MutexLock lock(&mutex_);
  watched_ = std::move(vmm);
}

bool SourceSession::IsWatched(const std::shared_ptr<VmmDriver>& vmm) {
  absl::MutexLock lock(&mutex_);
  return watched_ == vmm;
}

void SourceSession::Watch() {
  for (;;) {
    std::shared_ptr<VmmDriver> vmm;
    {
      absl::MutexLock lock(&mutex_);
      const auto to_do = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return stopping_ || watched_ != nullptr;
      };
      mutex_.Await(absl::Condition(&to_do));
      if (stopping_) return;
      vmm = watched_;
    }
    const absl::Status started = vmm->AwaitStart(kWatchSlice);
    if (absl::IsDeadlineExceeded(started)) continue;
    // This session's own start, or the end that it has asked for.
    if (!IsWatched(vmm)) continue;
    if (started.ok()) {
      OnForeignStart(*vmm);
    } else if (record_.process.WaitEnded(kWatchSlice)) {
      OnForeignEnd(*vmm);
    } else {
      spdlog::warn("session {}, vm {}, its monitor can no longer be watched: {}", session_text_,
                   options_.vm, started.ToString());
    }
    absl::MutexLock lock(&mutex_);
    if (watched_ == vmm && !started.ok()) watched_ = nullptr;
  }
}

void SourceSession::OnForeignStart(VmmDriver& vmm) {
  if (fenced_) {
    spdlog::error("session {}, vm {}, another client of its monitor has started it here, though {} "
                  "owns it: it is fenced, so its VMM ends before the guest touches its memory",
                  session_text_, options_.vm, options_.destination);
    if (record_.process.WaitEnded(kFencedStartEnds)) return OnForeignEnd(vmm);
    absl::MutexLock lock(&mutex_);
    notice_ = absl::StrCat("another client of the monitor has started the VM at its source; the "
                           "fence keeps it out of its memory; stop that VMM (process ",
                           record_.pid(), ")");
    return;
  }
  const std::string error = absl::StrCat(
      "VM ", options_.vm, " runs twice: another client of its monitor has started it here, though ",
      options_.destination, " owns it, and its hook is too old to be fenced. Its memory changes here, "
      "so it is served no longer; what has not arrived at ", options_.destination, " is lost");
  parts_.page_server.Withdraw(session_, error);  // the destination is told
  if (!status_.Apply(SessionEvent::kVmLost, error)) spdlog::error("{}", error);
  SetWatched(nullptr);
}

void SourceSession::OnForeignEnd(VmmDriver& vmm) {
  const std::string reason = vmm.OrderlyExit().value_or("as in a crash");
  const std::string notice = absl::StrCat(
      "the source's VMM (process ", record_.pid(), ") has ended (", reason,
      ") while the memory arrives; this daemon still has its RAM files and "
      "serves them: do not stop it before the relocation is committed");
  spdlog::warn("session {}, vm {}, {}", session_text_, options_.vm, notice);
  absl::MutexLock lock(&mutex_);
  notice_ = notice;
}

}  // namespace postcopy
