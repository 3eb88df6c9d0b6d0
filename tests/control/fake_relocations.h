// Relocations that tests script: they say what a call returns and see what it was called with.
//
// Not responsible for any logic of a relocation: states change when a test says so.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "relocation/relocation.h"

namespace postcopy {

inline constexpr const char* kTestSession = "00112233445566778899aabbccddeeff";

inline Progress ProgressIn(SessionState state) {
  Progress progress;
  progress.vm = "web1";
  progress.session = kTestSession;
  progress.peer = "10.77.0.12:7700";
  progress.state = state;
  return progress;
}

inline VmSummary VmNamed(const std::string& name, int pid) {
  VmSummary vm;
  vm.name = name;
  vm.pid = pid;
  return vm;
}

// Thread-safe.
class FakeRelocations : public Relocations {
 public:
  // --- what a test says ------------------------------------------------------------------------

  // From now on `operation` ("prepare", "load", ...) returns `status`; ok: succeeds again.
  void Fail(const std::string& operation, absl::Status status) {
    const absl::MutexLock lock(&mutex_);
    failures_[operation] = std::move(status);
  }
  // `operation` blocks until Cancel() is called, then returns kCancelled.
  void HoldUntilCancelled(const std::string& operation) {
    const absl::MutexLock lock(&mutex_);
    held_ = operation;
  }
  // `operation` blocks until LetGo() is called, then goes on.
  void Hold(const std::string& operation) {
    const absl::MutexLock lock(&mutex_);
    held_for_a_while_ = operation;
  }
  void LetGo() { Hold(""); }
  void SetVms(std::vector<VmSummary> vms) {
    const absl::MutexLock lock(&mutex_);
    vms_ = std::move(vms);
  }
  // What Check finds; nothing at first.
  void SetFindings(std::vector<Finding> findings) {
    const absl::MutexLock lock(&mutex_);
    findings_ = std::move(findings);
  }
  // What is owed, a step for each time that it is looked at; the last one stays.
  void SetOwed(std::deque<std::vector<Progress>> steps) {
    const absl::MutexLock lock(&mutex_);
    owed_ = std::move(steps);
  }
  // What Stats tells; whoever waits for a change sees it.
  void SetProgress(const Progress& progress) {
    const absl::MutexLock lock(&mutex_);
    progress_ = progress;
  }
  // What a Switch that fails leaves the session in.
  void AfterFailedSwitch(SessionState state) {
    const absl::MutexLock lock(&mutex_);
    after_failed_switch_ = state;
  }
  // What the session goes through once it has been switched: a step for each time it is waited for.
  void AfterSwitch(std::deque<Progress> steps) {
    const absl::MutexLock lock(&mutex_);
    after_switch_ = std::move(steps);
  }

  // --- what a test sees ------------------------------------------------------------------------

  std::vector<std::string> calls() {
    const absl::MutexLock lock(&mutex_);
    return calls_;
  }
  // False: it was not called so often within 10 s.
  bool AwaitCall(const std::string& call, int times = 1) {
    const auto called = [&] { return std::count(calls_.begin(), calls_.end(), call) >= times; };
    const absl::MutexLock lock(&mutex_);
    return mutex_.AwaitWithTimeout(absl::Condition(&called), absl::Seconds(10));
  }
  Offer offer() {
    const absl::MutexLock lock(&mutex_);
    return offer_;
  }
  std::string device_state() {
    const absl::MutexLock lock(&mutex_);
    return device_state_;
  }
  Progress figures() {
    const absl::MutexLock lock(&mutex_);
    return figures_;
  }
  PrepareOptions prepared() {
    const absl::MutexLock lock(&mutex_);
    return prepared_;
  }

  // --- Relocations -----------------------------------------------------------------------------

  std::vector<VmSummary> List() override {
    Called("list", "list").IgnoreError();
    const absl::MutexLock lock(&mutex_);
    return vms_;
  }
  std::vector<Progress> Owed() override {
    const absl::MutexLock lock(&mutex_);
    if (owed_.empty()) return {};
    std::vector<Progress> now = owed_.front();
    if (owed_.size() > 1) owed_.pop_front();
    return now;
  }
  absl::StatusOr<std::vector<Finding>> Check(const PrepareOptions& options) override {
    if (auto status = Called("check", "check " + options.vm); !status.ok()) return status;
    const absl::MutexLock lock(&mutex_);
    prepared_ = options;
    return findings_;
  }
  absl::StatusOr<std::vector<std::string>> OnCheck(const Offer& offer) override {
    const absl::MutexLock lock(&mutex_);
    offer_ = offer;
    return std::vector<std::string>{"it runs already", "its CPU differs"};
  }
  absl::StatusOr<std::string> Prepare(const PrepareOptions& options) override {
    {
      const absl::MutexLock lock(&mutex_);
      prepared_ = options;
      progress_ = ProgressIn(SessionState::kPrepared);
    }
    if (auto status = Called("prepare", absl::StrCat("prepare ", options.vm)); !status.ok()) {
      return status;
    }
    return std::string(kTestSession);
  }
  absl::StatusOr<std::optional<double>> Switch(const std::string& session) override {
    if (auto status = Called("switch", "switch " + session); !status.ok()) {
      const absl::MutexLock lock(&mutex_);
      if (after_failed_switch_.has_value()) progress_.state = *after_failed_switch_;
      return status;
    }
    const absl::MutexLock lock(&mutex_);
    progress_ = ProgressIn(SessionState::kRunning);
    switched_ = true;
    return 7.5;
  }
  absl::StatusOr<Progress> Stats(const std::string& vm) override {
    if (auto status = Called("stats", "stats " + vm); !status.ok()) return status;
    const absl::MutexLock lock(&mutex_);
    return progress_;
  }
  absl::StatusOr<Progress> WaitForChange(const std::string& vm, SessionState seen,
                                         std::chrono::milliseconds timeout) override {
    if (auto status = Called("wait", "wait " + vm); !status.ok()) return status;
    const auto changed = [&] {
      return progress_.state != seen || (switched_ && !after_switch_.empty());
    };
    const absl::MutexLock lock(&mutex_);
    mutex_.AwaitWithTimeout(absl::Condition(&changed), absl::FromChrono(timeout));
    if (switched_ && !after_switch_.empty()) {
      progress_ = after_switch_.front();
      after_switch_.pop_front();
    }
    return progress_;
  }
  absl::Status Hurry(const std::string& vm) override { return Called("hurry", "hurry " + vm); }
  absl::StatusOr<std::string> SourceLost(const std::string& vm, SourceLostAction action) override {
    const char* const what = action == SourceLostAction::kPoison ? " poison" : " kill";
    const absl::Status status = Called("source-lost", "source-lost " + vm + what);
    if (!status.ok()) return status;
    return "the source was lost";
  }
  absl::StatusOr<std::string> DestinationLost(const std::string& vm) override {
    const absl::Status status = Called("destination-lost", "destination-lost " + vm);
    if (!status.ok()) return status;
    return "it goes on here";
  }
  absl::Status Cancel(const std::string& vm) override {
    if (auto status = Called("cancel", "cancel " + vm); !status.ok()) return status;
    const absl::MutexLock lock(&mutex_);
    held_.clear();
    return absl::OkStatus();
  }
  absl::Status Release(const std::string& vm) override {
    return Called("release", "release " + vm);
  }
  absl::StatusOr<RecoveryReport> Recover(const std::string& vm) override {
    if (auto status = Called("recover", "recover " + vm); !status.ok()) return status;
    return RecoveryReport{SessionState::kUnknown, "destination", "it runs there"};
  }

  absl::Status OnOffer(const Offer& offer, const HasGone&) override {
    {
      const absl::MutexLock lock(&mutex_);
      offer_ = offer;
    }
    return Called("offer", "offer " + offer.session);
  }
  absl::Status OnOpenIncoming(const std::string& session) override {
    return Called("open", "open " + session);
  }
  absl::Status OnStopped(const std::string& session) override {
    return Called("stopped", "stopped " + session);
  }
  absl::Status OnLoad(const std::string& session, bool run,
                      std::string_view device_state) override {
    {
      const absl::MutexLock lock(&mutex_);
      device_state_ = std::string(device_state);
    }
    return Called("load", absl::StrCat("load ", session, run ? " run" : " paused"));
  }
  absl::StatusOr<Resumed> OnHandOver(const std::string& session) override {
    if (auto status = Called("hand-over", "hand-over " + session); !status.ok()) return status;
    return Resumed{1'700'000'000'000'001, std::chrono::microseconds(7)};
  }
  absl::Status OnAbort(const std::string& session, std::string_view reason) override {
    return Called("abort", "abort " + session + " " + std::string(reason));
  }
  absl::Status OnHurry(const std::string& session) override {
    return Called("hurry", "hurry " + session);
  }
  absl::StatusOr<Progress> OnFigures(const std::string& session) override {
    if (auto status = Called("figures", "figures " + session); !status.ok()) return status;
    const absl::MutexLock lock(&mutex_);
    return progress_;
  }
  absl::Status OnArrived(const std::string& session, const Progress& figures) override {
    {
      const absl::MutexLock lock(&mutex_);
      figures_ = figures;
    }
    return Called("arrived", "arrived " + session);
  }
  absl::Status OnConfirmFenced(const std::string& session) override {
    return Called("confirm fenced", "confirm fenced " + session);
  }
  absl::StatusOr<RecordedOutcome> OnQuery(const std::string& session, SessionRole) override {
    if (auto status = Called("query", "query " + session); !status.ok()) return status;
    return RecordedOutcome::kHandedOver;
  }

 private:
  absl::Status Called(const std::string& operation, const std::string& call) {
    const auto let_go = [&] { return held_ != operation; };
    const absl::MutexLock lock(&mutex_);
    calls_.push_back(call);
    if (held_ == operation) {
      mutex_.Await(absl::Condition(&let_go));
      progress_.state = SessionState::kCancelled;
      return absl::CancelledError(operation + ": cancelled by an operator");
    }
    const auto goes_on = [&] { return held_for_a_while_ != operation; };
    mutex_.Await(absl::Condition(&goes_on));
    const auto failure = failures_.find(operation);
    return failure == failures_.end() ? absl::OkStatus() : failure->second;
  }

  absl::Mutex mutex_;  // guards all below
  std::map<std::string, absl::Status> failures_;
  std::string held_;
  std::string held_for_a_while_;
  std::vector<std::string> calls_;
  std::vector<VmSummary> vms_;
  std::deque<std::vector<Progress>> owed_;
  Progress progress_ = ProgressIn(SessionState::kPrepared);
  bool switched_ = false;
  std::optional<SessionState> after_failed_switch_;
  std::deque<Progress> after_switch_;
  std::vector<Finding> findings_;
  PrepareOptions prepared_;
  Offer offer_;
  std::string device_state_;
  Progress figures_;
};

}  // namespace postcopy
