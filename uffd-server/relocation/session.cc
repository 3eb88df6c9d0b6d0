#include "relocation/session.h"

#include <spdlog/spdlog.h>

#include <exception>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kVmmKillLimit{5'000};

double MillisecondsSince(std::chrono::steady_clock::time_point when) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - when).count();
}

}  // namespace

SessionStatus::SessionStatus(Progress initial)
    : progress_(std::move(initial)), prepared_at_(std::chrono::steady_clock::now()) {}

SessionState SessionStatus::state() const {
  absl::MutexLock lock(&mutex_);
  return progress_.state;
}

Progress SessionStatus::Snapshot() const {
  absl::MutexLock lock(&mutex_);
  Progress snapshot = progress_;
  if (!IsFinal(snapshot.state)) {
    snapshot.elapsed_ms = MillisecondsSince(prepared_at_);
    if (resumed_.has_value() && !snapshot.after_switch_ms.has_value()) {
      snapshot.after_switch_ms = MillisecondsSince(*resumed_);
    }
  }
  return snapshot;
}

void SessionStatus::NoteResumed(int64_t at_us, std::chrono::steady_clock::time_point at) {
  absl::MutexLock lock(&mutex_);
  progress_.resumed_at_us = at_us;
  resumed_ = at;
}

void SessionStatus::NoteCommitted(int64_t at_us) {
  absl::MutexLock lock(&mutex_);
  progress_.committed_at_us = at_us;
  if (resumed_.has_value()) progress_.after_switch_ms = MillisecondsSince(*resumed_);
}

std::optional<std::chrono::microseconds> SessionStatus::SinceResume() const {
  absl::MutexLock lock(&mutex_);
  if (!resumed_.has_value()) return std::nullopt;
  return std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() -
                                                               *resumed_);
}

bool SessionStatus::Apply(SessionEvent event, const std::string& error) {
  SessionState from, to;
  std::string vm, session;
  {
    absl::MutexLock lock(&mutex_);
    const auto next = Next(progress_.state, event);
    if (!next.has_value()) return false;
    from = progress_.state;
    to = *next;
    progress_.state = to;
    if (!error.empty()) progress_.error = error;
    if (IsFinal(to)) {
      progress_.elapsed_ms = MillisecondsSince(prepared_at_);
    }
    vm = progress_.vm;
    session = progress_.session;
  }
  if (error.empty()) {
    spdlog::info("session {}, vm {}, {} -> {}", session, vm, Name(from), Name(to));
  } else {
    spdlog::warn("session {}, vm {}, {} -> {}, cause {}", session, vm, Name(from), Name(to), error);
  }
  return true;
}

void SessionStatus::Update(const std::function<void(Progress&)>& change) {
  absl::MutexLock lock(&mutex_);
  change(progress_);
}

bool SessionStatus::WaitForChange(SessionState seen, std::chrono::milliseconds timeout) const {
  absl::MutexLock lock(&mutex_);
  const auto changed = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return progress_.state != seen; };
  return mutex_.AwaitWithTimeout(absl::Condition(&changed), absl::FromChrono(timeout));
}

void VmmView::Show(const std::shared_ptr<VmmDriver>& vmm) {
  absl::MutexLock lock(&mutex_);
  vmm_ = vmm;
}

std::string VmmView::GuestState(std::chrono::milliseconds limit) const {
  std::shared_ptr<VmmDriver> vmm;
  {
    absl::MutexLock lock(&mutex_);
    vmm = vmm_.lock();
  }
  return vmm == nullptr ? "" : vmm->QueryStateText(limit).value_or("");
}

ProcessIdentity IdentityOf(const VmRecord& vm) {
  auto identity = Identify(vm.process);
  return identity.ok() ? *std::move(identity) : ProcessIdentity{vm.pid(), 0, ""};
}

int64_t NowUs() { return absl::ToUnixMicros(absl::Now()); }

absl::Status KillVmm(const VmRecord& vm) {
  const auto killed = vm.process.Kill();
  if (!killed.ok()) return StatusOf(killed.error());
  if (vm.process.WaitEnded(kVmmKillLimit)) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("process ", vm.pid(), " does not end"));
}

absl::Status Caught(const std::function<absl::Status()>& step) {
  try {
    return step();
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

absl::Status NothingDone(const absl::Status& written) {
  return written.ok() ? written : absl::ResourceExhaustedError(written.message());
}

absl::Status NothingArrives(const std::string& operation, const std::string& vm,
                            SessionState state) {
  return absl::FailedPreconditionError(absl::StrCat(operation, " ", vm,
                                                    ": its memory is not arriving, the session is ",
                                                    std::string(Name(state))));
}

absl::Status Prefixed(const std::string& prefix, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(prefix, ": ", status.message()));
}

}  // namespace postcopy
