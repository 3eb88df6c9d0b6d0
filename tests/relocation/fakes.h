// Both ends of a switch as plain objects: a VMM that does what it is told or fails where a test says
// so, and a destination with a record of its own. They share a World that sees who runs the guest.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "relocation/peer.h"
#include "relocation/session.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// Who runs the guest now, and whether it ever was two at once.
struct World {
  std::atomic<bool> source_runs = true;
  std::atomic<bool> destination_runs = false;
  std::atomic<bool> ran_twice = false;
  std::atomic<GuestState> vmm_state = GuestState::kRunning;  // of the VMM that a test is about
  std::string throws_at;  // the call, as Calls() names it, that runs out of memory

  std::optional<bool> left_stopped;  // what a hold that failed could not undo
  bool empties_memory = false;       // its VMM, when it ends
  std::atomic<bool> monitor_closed = false;  // nothing more is reported over it

  // Another client of the VMM's monitor starts the guest.
  void StartByAnotherHand() {
    const std::lock_guard lock(mutex);
    ++foreign_starts;
    changed.notify_all();
  }
  bool AwaitForeignStart(int seen, std::chrono::milliseconds timeout) {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, timeout, [&] { return foreign_starts > seen; });
  }

  std::function<void(const std::string& call)> on_call;  // set while no call is made

  void Note(const std::string& call) {
    if (on_call) on_call(call);
    const std::lock_guard lock(mutex);
    calls.push_back(call);
    if (source_runs && destination_runs) ran_twice = true;
  }
  // What the VMM that a test is about shows of its machine.
  void Show(MachinePrint shown) {
    const std::lock_guard lock(mutex);
    print = std::move(shown);
  }
  MachinePrint Print() {
    const std::lock_guard lock(mutex);
    return print;
  }
  std::vector<std::string> Calls() {
    const std::lock_guard lock(mutex);
    return calls;
  }

 private:
  std::mutex mutex;
  std::condition_variable changed;
  int foreign_starts = 0;
  std::vector<std::string> calls;
  MachinePrint print;
};

class FakeVmm final : public VmmDriver {
 public:
  FakeVmm(World& world, VmmDescription description, std::map<std::string, absl::Status>& failures)
      : world_(world), description_(std::move(description)), failures_(failures) {}

  absl::StatusOr<VmmDescription> Describe() override {
    description_.state = world_.vmm_state;
    return description_;
  }
  absl::StatusOr<bool> CheckMovable() override {
    const absl::Status status = Step("check");
    return status.ok() ? absl::StatusOr<bool>(world_.source_runs) : status;
  }
  absl::StatusOr<MachinePrint> Print() override { return world_.Print(); }
  absl::Status PrepareSource() override { return Step("prepare"); }
  absl::StatusOr<Held> StopAndHold() override {
    const absl::Status status = Step("hold");
    if (!status.ok()) return status;
    const bool was_running = world_.source_runs;
    world_.source_runs = false;
    world_.vmm_state = GuestState::kHeldAtSwitchover;
    return Held{was_running, {was_running ? 1000 : 0}};
  }
  absl::StatusOr<DeviceState> TakeDeviceState() override {
    const absl::Status status = Step("take");
    if (!status.ok()) return status;
    world_.vmm_state = GuestState::kSent;
    return DeviceState{"device state", 0};
  }
  absl::Status ResumeSource(bool was_running) override {
    const absl::Status status = Step("resume");
    if (status.ok()) {
      world_.source_runs = was_running;
      world_.vmm_state = was_running ? GuestState::kRunning : GuestState::kPaused;
    }
    world_.Note("resumed");
    return status;
  }
  std::optional<bool> LeftStopped() const override { return world_.left_stopped; }
  absl::Status RestoreSettings() override { return Step("restore"); }
  bool EmptiesMemoryAtEnd() const override { return world_.empties_memory; }
  void AdoptEmptiedAtEnd(std::vector<std::string> backends) override {
    for (const std::string& backend : backends) world_.Note("vmm adopt " + backend);
  }
  absl::Status Quit() override { return Step("quit"); }
  absl::Status PrepareDestination() override { return Step("prepare-destination"); }
  absl::Status OpenIncoming() override { return Step("open"); }
  absl::Status StayStopped() override { return Step("stay stopped"); }
  absl::Status LoadDeviceState(std::string_view) override { return Step("load"); }
  absl::StatusOr<EventTime> StartGuest() override {
    const absl::Status status = Step("start");
    if (!status.ok()) return status;
    world_.destination_runs = true;
    world_.Note("started");
    return EventTime{2000};
  }
  absl::Status ActivateDisksAtLoad() override { return Step("activate disks"); }
  absl::Status ExpectPaused() override { return Step("expect paused"); }
  bool MayHaveRun() override { return !Step("may have run").ok(); }
  absl::Status EndLoadSettings(std::chrono::milliseconds) override { return Step("end settings"); }
  std::optional<std::string> OrderlyExit() override {
    const absl::Status status = Step("orderly exit");
    if (status.ok()) return std::nullopt;
    return std::string(status.message());
  }
  absl::Status AwaitStart(std::chrono::milliseconds timeout) override {
    if (world_.monitor_closed) return absl::UnavailableError("the VMM has closed the connection");
    if (!world_.AwaitForeignStart(starts_seen_, timeout)) return absl::DeadlineExceededError("none");
    ++starts_seen_;
    return absl::OkStatus();
  }
  absl::StatusOr<GuestState> QueryState() override { return world_.vmm_state.load(); }
  absl::StatusOr<std::string> QueryStateText(std::chrono::milliseconds) override {
    return world_.vmm_state == GuestState::kRunning ? "running" : "in another state";
  }

 private:
  absl::Status Step(const std::string& name) {
    world_.Note("vmm " + name);
    if (world_.throws_at == "vmm " + name) throw std::bad_alloc();
    const auto found = failures_.find("vmm " + name);
    return found == failures_.end() ? absl::OkStatus() : found->second;
  }

  World& world_;
  int starts_seen_ = 0;
  VmmDescription description_;
  std::map<std::string, absl::Status>& failures_;
};

// What the destination's daemon does, with its own durable record.
struct FakeDestination {
  World& world;
  std::map<std::string, absl::Status>& failures;  // by call; the call then does nothing
  // A call whose answer is lost is carried out all the same.
  std::map<std::string, absl::Status> lost_answers;
  std::atomic<RecordedOutcome> record = RecordedOutcome::kNone;
  std::atomic<bool> reachable = true;
  bool run = false;
  Resumed resumed{3000, std::chrono::microseconds(0)};  // its wall clock is decades behind
  std::vector<std::string> findings = {};  // its answer to Check()
  // What it answers when it is asked for its figures; fixed once somebody may ask.
  absl::StatusOr<Progress> figures = absl::UnavailableError("no figures");
};

class FakeDestinationPeer final : public DestinationPeer {
 public:
  explicit FakeDestinationPeer(FakeDestination& at) : at_(at) {}

  absl::Status MakeOffer(const Offer&) override {
    const absl::Status status = Begin("offer");
    if (status.ok()) at_.record = RecordedOutcome::kPrepared;
    return status;
  }
  absl::StatusOr<std::vector<std::string>> Check(const Offer&) override { return at_.findings; }
  void WarmUp() override { at_.world.Note("destination warm up"); }
  absl::Status OpenIncoming(const std::string&) override { return Begin("open"); }
  std::unique_ptr<StateTransfer> BeginLoad(const std::string&) override {
    at_.world.Note("destination begin load");
    return std::make_unique<FakeTransfer>(*this);
  }
  absl::StatusOr<Resumed> HandOver(const std::string&) override {
    const absl::Status status = Begin("hand-over");
    if (!status.ok()) return status;
    if (at_.record == RecordedOutcome::kNever) return absl::AbortedError("never");
    at_.record = RecordedOutcome::kOwner;
    at_.world.destination_runs = at_.run;
    at_.world.Note("destination runs");
    const absl::Status answer = Answer("hand-over");
    if (!answer.ok()) return answer;
    return at_.resumed;
  }
  absl::Status Abort(const std::string&, std::string_view,
                     std::chrono::milliseconds) override {
    const absl::Status status = Begin("abort");
    if (!status.ok()) return status;
    if (at_.record == RecordedOutcome::kOwner) return absl::FailedPreconditionError("owner");
    at_.record = RecordedOutcome::kNever;
    return Answer("abort");
  }
  absl::Status Hurry(const std::string&) override { return Begin("hurry"); }
  absl::StatusOr<Progress> Figures(const std::string&) override { return at_.figures; }
  absl::StatusOr<RecordedOutcome> Query(const std::string&) override {
    const absl::Status status = Begin("query");
    if (!status.ok()) return status;
    return at_.record.load();
  }

 private:
  class FakeTransfer final : public StateTransfer {
   public:
    explicit FakeTransfer(FakeDestinationPeer& peer) : peer_(peer) {}
    absl::Status Finish(bool run, std::string_view) override {
      const absl::Status status = peer_.Begin("load");
      if (status.ok()) peer_.at_.run = run;
      return status.ok() ? peer_.Answer("load") : status;
    }

   private:
    FakeDestinationPeer& peer_;
  };

  absl::Status Begin(const std::string& name) {
    at_.world.Note("destination " + name);
    if (!at_.reachable) return absl::UnavailableError("no route");
    const auto found = at_.failures.find("destination " + name);
    return found == at_.failures.end() ? absl::OkStatus() : found->second;
  }
  absl::Status Answer(const std::string& name) {
    const auto found = at_.lost_answers.find(name);
    return found == at_.lost_answers.end() ? absl::OkStatus() : found->second;
  }

  FakeDestination& at_;
};

// The source's daemon as the destination asks it.
class FakeSourcePeer final : public SourcePeer {
 public:
  FakeSourcePeer(const absl::StatusOr<RecordedOutcome>& record, const absl::Status& fenced)
      : record_(record), fenced_(fenced) {}
  absl::Status Arrived(const std::string&, const Progress&) override { return record_.status(); }
  absl::Status ConfirmFenced(const std::string&) override { return fenced_; }
  absl::StatusOr<RecordedOutcome> Query(const std::string&) override { return record_; }

 private:
  const absl::StatusOr<RecordedOutcome>& record_;
  const absl::Status& fenced_;
};

class FakePeers final : public PeerFactory {
 public:
  explicit FakePeers(FakeDestination& destination) : destination_(destination) {}
  std::unique_ptr<DestinationPeer> ConnectDestination(const std::string&) override {
    return std::make_unique<FakeDestinationPeer>(destination_);
  }
  std::unique_ptr<SourcePeer> ConnectSource(const std::string&) override {
    return std::make_unique<FakeSourcePeer>(source_record, source_fenced);
  }
  // What the source answers.
  absl::StatusOr<RecordedOutcome> source_record = RecordedOutcome::kNone;
  absl::Status source_fenced = absl::OkStatus();

 private:
  FakeDestination& destination_;
};

}  // namespace postcopy
