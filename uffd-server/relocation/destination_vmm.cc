// What a DestinationSession does about its VMM while the guest runs and memory arrives: ends the
// settings of the load, and tells an orderly exit from a crash.
//
// What was set for the load must not stay: with x-ignore-shared on, QEMU saves a guest without its
// memory and reports success. Nothing waits for it, since a VMM whose main thread waits for a page
// answers nothing.
#include <spdlog/spdlog.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "relocation/destination_session.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kSettingsLimit{200};  // one answer
constexpr milliseconds kFirstPause{200};
constexpr milliseconds kLongestPause{5'000};

}  // namespace

bool DestinationSession::EndLoadSettings() {
  if (settings_ended_) return true;
  const auto now = steady_clock::now();
  if (now < settings_again_at_) return false;
  const absl::Status ended = TryEndLoadSettings();
  if (ended.ok()) {
    settings_ended_ = true;
    return true;
  }
  settings_pause_ = std::clamp(settings_pause_ * 2, kFirstPause, kLongestPause);
  settings_again_at_ = steady_clock::now() + settings_pause_;
  const std::string error = ended.ToString();
  if (error != settings_error_) {
    spdlog::info("session {}, vm {}, settings of the load stay on for now, cause {}", session_text_,
                 record_.name, error);
  }
  settings_error_ = error;
  return false;
}

absl::Status DestinationSession::TryEndLoadSettings() {
  Turn::Holder turn(turn_);
  if (vmm_ == nullptr) {
    auto vmm = parts_.connect_vmm(record_);
    if (!vmm.ok()) return vmm.status();
    UseVmm(*std::move(vmm));
  }
  const absl::Status ended = vmm_->EndLoadSettings(kSettingsLimit);
  if (!absl::IsUnavailable(ended)) return ended;
  // Its connection has ended. It keeps what it has reported last, its end perhaps, until there is another.
  if (auto again = parts_.connect_vmm(record_); again.ok()) UseVmm(*std::move(again));
  return ended;
}

void DestinationSession::EndLoadSettingsAtLast() {
  while (!EndLoadSettings()) {
    if (record_.process.HasEnded() || !SleepUnlessStopped(kFirstPause)) break;
  }
  Turn::Holder turn(turn_);
  vmm_.reset();
}

void DestinationSession::EndWithVmm() {
  std::optional<std::string> exit;
  {
    Turn::Holder turn(turn_);
    if (vmm_ != nullptr) exit = vmm_->OrderlyExit();
  }
  if (!exit.has_value()) {
    EndCrashed(absl::StrCat("the VM has ended as in a crash: its VMM (process ", record_.pid(),
                            ") ended while its memory was arriving"));
    return;
  }
  const std::string note = absl::StrCat(
      *exit, " while its memory was arriving: VM ", record_.name,
      " has ended in order, and what had not arrived is not needed any more");
  spdlog::info("session {}, {}", session_text_, note);
  engine_->Stop();
  // "All has arrived": nothing more is wanted of the source, which ends its VMM when it is told.
  NoteRecorded(Write(OwnershipMark::kArrived));
  {
    Turn::Holder turn(turn_);
    LetGoOfVmm();
  }
  status_.Update([&](Progress& progress) {
    progress.committed_at_us = NowUs();
    progress.error.clear();
    progress.note = note;
  });
  status_.Apply(SessionEvent::kAllPresent);
  if (TellSource()) NoteRecorded(Write(OwnershipMark::kCommitted));
}

}  // namespace postcopy
