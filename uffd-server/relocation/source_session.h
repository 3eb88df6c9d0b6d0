// One relocation at the source: checks, stops the VM, takes its state, hands it over, serves its
// memory until commit, lets it go.
//
// The durable record "handed over" is the switch. Before it every failure is rolled back, after the
// destination was made unable to run the VM. After it this host runs the VM again only if the
// destination has durably recorded that it never did (docs/decisions/0003).
//
// Split by what is done: source_session.cc (prepare, the steps of the switch), source_memory.cc (what of
// its memory is served), source_fence.cc (that the guest does not run here while another host owns it),
// source_recovery.cc (what becomes of it when a step fails, or a daemon ends), source_end.cc (the end of
// one whose VM has left).
//
// Threads: operations come from the control plane, one at a time (Turn); a thread of its own
// attends to the session: it asks the destination for as long as it is not known who owns the VM,
// and whether it has arrived. Another watches the VMM from the hand-over on.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platform/quiet_thread.h"
#include "relocation/relocation.h"
#include "relocation/session.h"
#include "server/daemon_thread.h"

namespace postcopy {

class SourceSession {
 public:
  // Checks both sides and gets the destination ready; the VM runs on.
  static absl::StatusOr<std::shared_ptr<SourceSession>> Prepare(const DaemonParts& parts,
                                                                const PrepareOptions& options);
  // Goes on with a session of an earlier daemon that has handed the VM over, as `recorded` says:
  // its memory is served again. `record` is of the VMM, which has registered.
  //   kFailedPrecondition  the VMM does not stand still: what it says of its memory is worth
  //   nothing others               it cannot be asked now; try again
  static absl::StatusOr<std::shared_ptr<SourceSession>> TakeUp(const DaemonParts& parts,
                                                               const OwnershipRecord& recorded,
                                                               VmRecord record);
  // The same where the VMM has ended, while no daemon ran: from the RAM files of `recorded`, by path.
  //   kFailedPrecondition  a file is not there any more, or is another one, or another VM has it
  //   others               it cannot be opened now; try again
  static absl::StatusOr<std::shared_ptr<SourceSession>> TakeUpFiles(const DaemonParts& parts,
                                                                    const OwnershipRecord& recorded);
  ~SourceSession();

  // Stops the VM here and has it resumed there. The downtime in milliseconds; nothing: the VM was
  // paused, or the destination's answer came from another daemon than the one that resumed it.
  //   kAborted, kCancelled  rolled back: the VM goes on here
  //   kDataLoss             the VM has ended as in a crash
  //   kInternal             stopped until it is known who owns it; recover tells
  absl::StatusOr<std::optional<double>> Switch();
  // Gives the session up. kFailedPrecondition after the switch.
  absl::Status Cancel();
  // Lifts every limit on what brings the memory to the destination. kFailedPrecondition: none is on its
  // way.
  absl::Status Hurry();
  // Takes the VM back from a destination that is out of reach for good. What was done, in words.
  // REQUIRES: it has not run the VM, and never will.
  //   kFailedPrecondition  it has run the VM, it answers or fetches memory, it is known who owns the VM, or the
  //                        switch is still under way; nothing has changed
  //   others               the VM stays stopped here; where it could not be resumed that is tried again
  absl::StatusOr<std::string> DestinationLost();
  // Lets a VMM that was kept after commit go.
  absl::Status Release();
  // The destination has every page.
  absl::Status OnArrived(const Progress& figures);
  // Asks the destination and does what is safe.
  RecoveryReport Recover();

  const std::string& session() const { return session_text_; }
  // Its VMM has ended before anything was begun: nothing can become of it.
  bool IsDead() const {
    return status_.state() == SessionState::kPrepared && record_.process.HasEnded();
  }
  bool HasVmmEnded() const { return record_.process.HasEnded(); }
  // May ask the destination for its figures.
  Progress Snapshot();
  // See VmmView.
  std::string GuestState(std::chrono::milliseconds limit) const { return view_.GuestState(limit); }
  // What this side knows by itself; does not block.
  Progress OwnProgress() const { return status_.Snapshot(); }
  bool WaitForChange(SessionState seen, std::chrono::milliseconds timeout) {
    return status_.WaitForChange(seen, timeout);
  }
  SessionState state() const { return status_.state(); }
  // The other daemon's control address.
  const std::string& destination() const { return options_.destination; }

 private:
  SourceSession(const DaemonParts& parts, const PrepareOptions& options, VmRecord record,
                ProcessIdentity vmm, SessionId session, SessionState state);
  // What of its RAM files the destination sees as its layout; the page server gets them.
  absl::StatusOr<std::shared_ptr<RamFileSource>> ServeMemory(const VmmDescription& vmm);
  std::shared_ptr<RamFileSource> ServeFiles(const MemoryLayout& layout,
                                            std::vector<RamFileSource::RegionFile> files);
  // The guest has stopped: what is missing in a file from now on was lost; the next daemon says how much less
  // there is.
  void FreezeMemory();
  absl::StatusOr<Offer> MakeOffer(const VmmDescription& vmm);
  // The steps of the switch; a status that is not ok says which failed.
  absl::Status StopAndLoad();
  // Nothing has been begun: the machine may be in a state that is not moved, or have ended, and its run
  // state is what a roll-back restores.
  absl::Status CheckStillMovable();
  absl::Status RecordHandOver();
  absl::StatusOr<std::optional<double>> FinishHandOver();
  // The destination has said that the guest runs there: when, and so for how long it stood still.
  void NoteResumed(const Resumed& resumed) ABSL_LOCKS_EXCLUDED(mutex_);
  // Makes sure that the destination never runs it, then lets it go on here. If its VMM lives and cannot be
  // resumed now the attendant tries again.
  absl::Status RollBack(const absl::Status& cause, bool must_ask_destination);
  // The destination will never run it: lets it go on here, if it can be. kAborted, kCancelled: it does.
  absl::Status GoOnHere(const absl::Status& cause);
  // The VM stands still here and nobody else will run it. ok: it goes on.
  absl::Status ResumeHere();
  // The VM has ended before this session stopped it.
  absl::Status EndBeforeSwitch();

  // --- the fence (source_fence.cc) ---
  // Has the hook begin to make guest RAM inaccessible here; AwaitFence() waits until it is. A hook that
  // knows no fence is a warning.
  absl::Status BeginFence();
  absl::Status AwaitFence();
  // No fence could be laid: OK where the VMM has ended, as it runs nothing any more; otherwise `cause`.
  absl::Status Unfenced(const absl::Status& cause);
  // ok: no client has started the guest since it was stopped, so the memory belongs to the state that was
  // taken. Behind the fence it stays so.
  absl::Status LookForStart();
  static absl::Status StartedByAnother();
  // ok: guest RAM is accessible, and stays so.
  absl::Status LiftFence();
  // Of a session that was taken up: lays the fence where it is not there.
  void FenceAgain();
  // Starts the thread that watches the VMM given to SetWatched(). Once.
  absl::Status StartWatching();
  // From then on a start of the guest here is another client's doing, and so is the VMM's end.
  // nullptr: no longer.
  void SetWatched(std::shared_ptr<VmmDriver> vmm) ABSL_LOCKS_EXCLUDED(mutex_);
  void Watch();
  bool IsWatched(const std::shared_ptr<VmmDriver>& vmm) ABSL_LOCKS_EXCLUDED(mutex_);
  // What the watch has seen.
  void OnForeignStart(VmmDriver& vmm);
  void OnForeignEnd(VmmDriver& vmm);

  // Its connection to the VMM, from now on. REQUIRES: the turn.
  void UseVmm(std::shared_ptr<VmmDriver> vmm) {
    vmm_ = std::move(vmm);
    view_.Show(vmm_);
  }
  // A connection to the VMM, if it has none, that knows what an earlier one has changed there.
  absl::Status ConnectVmm();
  OwnershipRecord RecordOf(OwnershipMark mark) const;
  absl::Status Write(OwnershipMark mark) ABSL_LOCKS_EXCLUDED(record_mutex_);
  absl::Status Write(const OwnershipRecord& record) ABSL_LOCKS_EXCLUDED(record_mutex_);
  // *Rolled back*, before the VM is resumed: a daemon that is started again resumes it.
  absl::Status WriteToBeResumed();
  // Adds it to the record while that says *handed over*, so that the next daemon refuses destination-lost, too.
  void RecordThatItRanThere() ABSL_LOCKS_EXCLUDED(record_mutex_);
  // The destination has said that it runs there, or that it owns it.
  void NoteRanThere() ABSL_LOCKS_EXCLUDED(mutex_, record_mutex_);
  // Which of two words that exclude each other counts: that all has arrived, or an operator's that the
  // destination is lost before it ran there. False: the other one came first, or it did.
  enum class Decision { kArrived, kTakenBack };
  bool Decide(Decision decision) ABSL_LOCKS_EXCLUDED(mutex_);
  // kResourceExhausted: no thread could be made.
  absl::Status StartAttending();
  // By this host's record.
  bool WasHandedOver() const;
  void Attend();
  // Asks the destination whether all memory has arrived, in case that its word was lost.
  void AskWhetherArrived();
  // Goes on from what an earlier daemon has recorded of it.
  void Adopt(const OwnershipRecord& recorded) ABSL_LOCKS_EXCLUDED(record_mutex_);
  // False once the session is being taken down.
  bool SleepUnlessStopped(std::chrono::milliseconds time);
  bool CancelRequested() ABSL_LOCKS_EXCLUDED(mutex_);
  // The destination's session has failed: so has this one. Where the VM runs on there, without a
  // part of its memory, nothing of this side is wanted any more.
  void EndAsThere(const std::string& error);
  void LetGo();
  // Of a VMM that stays here, stopped, for its operator: QEMU answers one client a monitor. Takes
  // the turn.
  void FreeMonitor();

  const DaemonParts& parts_;
  const PrepareOptions options_;
  const SessionId session_;
  const std::string session_text_;
  VmRecord record_;  // without blocks from MakeOffer() on
  const ProcessIdentity vmm_identity_;
  std::vector<RecordedBlock> memory_;  // what ServeMemory() serves
  std::vector<std::string> emptied_at_end_;  // backends whose file its VMM is to empty when it ends
  std::weak_ptr<RamFileSource> ram_;   // the page server has it; with it the memory goes
  uint64_t allocated_bytes_ = 0;       // of its files when the guest had stopped, at first; 0: not stopped yet
  SessionStatus status_;
  Turn turn_;
  const std::unique_ptr<DestinationPeer> destination_;

  // Used by the operation that has the turn.
  std::shared_ptr<VmmDriver> vmm_;
  VmmView view_;
  MachinePrint print_;  // at Prepare(); compared before the guest is stopped
  bool stopped_ = false;  // by StopAndHold(): it stands still because of this session
  bool was_running_ = true;
  std::vector<uint64_t> ram_addresses_;  // of the blocks that are served, in the VMM's address space
  std::optional<VmRegistry::FenceRequest> fence_;  // requested, not known to be laid
  bool fence_begun_ = false;
  std::atomic<bool> may_have_run_there_ = false;  // the destination has said so, or that it is the owner
  std::atomic<bool> fenced_ = false;  // laid; read by the watcher

  // Held while the record is written; before mutex_.
  absl::Mutex record_mutex_;
  std::optional<OwnershipMark> recorded_ ABSL_GUARDED_BY(record_mutex_);  // by this object, last

  absl::Mutex mutex_;
  std::optional<Decision> decision_ ABSL_GUARDED_BY(mutex_);
  bool cancel_requested_ ABSL_GUARDED_BY(mutex_) = false;
  std::optional<std::chrono::steady_clock::time_point> stopped_at_ ABSL_GUARDED_BY(mutex_);  // STOP
  // Why it is to go on here, where it could not be resumed yet.
  std::optional<absl::Status> resume_again_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<VmmDriver> watched_ ABSL_GUARDED_BY(mutex_);
  // What an operator should know of the source while memory arrives; empty: nothing.
  std::string notice_ ABSL_GUARDED_BY(mutex_);
  std::optional<QuietThread> watcher_;
  std::string attended_;  // what the attendant has logged last; its own
  DaemonThread attendant_;
};

}  // namespace postcopy
