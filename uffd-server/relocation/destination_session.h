// One relocation at the destination: gets the waiting VMM ready, loads the machine, becomes the
// owner, brings the memory, commits.
//
// Nothing here runs the guest before the durable record "owner", and no record "owner" is written
// after "never" or the other way round: whichever is written first decides for both hosts.
//
// Split by what is done: destination_setup.cc (prepare, take up), destination_session.cc (the steps
// of the switch), destination_ownership.cc (gives the VM back), destination_attendant.cc (all that it
// does by itself), destination_vmm.cc (about its VMM while memory arrives), source_loss.cc (its source
// is gone for good).
//
// Threads: operations come from the control plane, one at a time (Turn); a thread of its own
// attends to the session from the load on: asks the source when the hand-over does not come, then
// waits for the memory, or gives up the source, then commits.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "engine/keepsake.h"
#include "engine/userfault_device.h"
#include "relocation/session.h"
#include "server/daemon_thread.h"

namespace postcopy {

class DestinationSession {
 public:
  // Checks the fit, empties and allocates the RAM, arms, opens the lanes. On failure the waiting VMM
  // is as it was and can be used again. kCancelled: `has_gone` said so.
  static absl::StatusOr<std::shared_ptr<DestinationSession>> Prepare(const DaemonParts& parts,
                                                                     const Offer& offer,
                                                                     const HasGone& has_gone);
  // Goes on with a session of an earlier daemon, whose VMM has registered armed for it: the page
  // states and descriptors are the VMM's. `recorded` is kOwner, kIncomplete (then what is missing
  // is given up, as it was to be), or kOffered and the source says that it has handed the VM over.
  // Faults are answered from here on.
  //   kFailedPrecondition  what the VMM has kept does not fit: its own text
  static absl::StatusOr<std::shared_ptr<DestinationSession>> TakeUp(const DaemonParts& parts,
                                                                    const OwnershipRecord& recorded,
                                                                    VmRecord record);
  ~DestinationSession();

  absl::Status OpenIncoming();
  // The guest has stopped at the source: its memory can be had. What has come is worth nothing if
  // the guest goes on there.
  absl::Status SourceStopped();
  absl::Status Load(bool run, std::string_view device_state);
  // When the guest was resumed. Calling it twice is harmless.
  //   kAborted    "never" is recorded: the source may run it
  //   IsDeadNotRecorded()  it will not run here, and that is not on this host's disk
  //   kDataLoss   "owner" is recorded and the VMM has ended: the VM is lost as in a crash
  //   kInternal   neither could be recorded; ask again
  absl::StatusOr<Resumed> HandOver();
  // ok: "never" is recorded, a VMM that was used up has ended. kFailedPrecondition: it is the owner.
  // IsDeadNotRecorded(): its VMM has ended, and "never" could not be written.
  absl::Status Abort(const std::string& reason);
  // Whether "owner" on its disk may still become "never": the guest has not been started here.
  bool AwaitsStart();

  // Lifts every limit on the bulk. kFailedPrecondition: no memory is arriving.
  absl::Status Hurry();
  // Gives up the source, at once: see Relocations::SourceLost(). Blocks until the attendant has
  // done it.
  //   kResourceExhausted  it could not be recorded; nothing has changed
  //   kInternal           a part of what is missing could not be poisoned, which is tried again, or
  //                       the VMM not be ended
  absl::StatusOr<std::string> SourceLost(SourceLostAction action);

  const std::string& session() const { return session_text_; }
  bool HasVmmEnded() const { return record_.process.HasEnded(); }
  Progress Snapshot();
  // See VmmView.
  std::string GuestState(std::chrono::milliseconds limit) const { return view_.GuestState(limit); }
  bool WaitForChange(SessionState seen, std::chrono::milliseconds timeout) {
    return status_.WaitForChange(seen, timeout);
  }
  // The other daemon's control address.
  const std::string& source() const { return source_address_; }
  SessionState state() const { return status_.state(); }

 private:
  static constexpr std::chrono::milliseconds kLongWay{1};

  DestinationSession(const DaemonParts& parts, Progress initial, VmRecord record,
                     SessionId session);
  absl::Status MakeKeepsake(const Offer& offer, const std::vector<size_t>& blocks);
  absl::Status Arm(const Offer& offer, const std::vector<size_t>& blocks);
  // Makes the regions and the device of what is armed: of blocks_, in the layout's order.
  absl::Status UseArmed(UniqueFd userfault);
  absl::Status AllocateData(const Offer& offer, const HasGone& has_gone);
  absl::Status OpenLanes(const Offer& offer);
  // Makes the engine of a session that is taken up, and lets it answer faults.
  absl::Status TakeUpEngine();
  // The load's own pages take so long that others should come meanwhile.
  bool IsWayLong() { return engine_->RoundTrip() >= kLongWay; }
  // ok: between OpenIncoming() and the end of Load().
  absl::Status CheckLoading();
  // Makes this host the owner. Other statuses than ok: as HandOver().
  absl::Status TakeOwnership();
  // Of a session that was taken up before "owner": connects to its VMM and sees it paused.
  absl::Status WatchLoaded();
  // Ends a VMM that was used up, records "never". kAborted: done; IsDeadNotRecorded(): not recorded;
  // kInternal: the VMM was not seen dead. REQUIRES: the turn, and that the guest has not run here.
  absl::Status GiveBack(const std::string& reason);
  // Whether "never" is being or was written.
  bool IsGivenUp();
  // Notes that the guest could not be started; what HandOver() answers then. REQUIRES: the turn.
  absl::Status NotStarted(const absl::Status& cause);
  // Gives the VM back to its source if its VMM has refused to start it for long enough, and everything
  // that this takes is given: it has not run here, and the source has it and is fenced.
  void ConsiderGivingBack();
  // True once nothing is left on in the VMM that was set for the load. Tries it where that is due.
  bool EndLoadSettings();
  absl::Status TryEndLoadSettings();
  // Until it is done, then gives up the monitor.
  void EndLoadSettingsAtLast();
  // Ends the session of a VM whose VMM has ended while its memory arrived: in order, or as in a crash.
  void EndWithVmm();
  // Connects to the VMM first where that has not been done. REQUIRES: the turn.
  absl::StatusOr<EventTime> StartGuest();
  // Its connection to the VMM, from now on. REQUIRES: the turn.
  void UseVmm(std::shared_ptr<VmmDriver> vmm) {
    vmm_ = std::move(vmm);
    view_.Show(vmm_);
  }
  // The answer to a hand-over of a VM that runs here.
  Resumed WhenResumed() const;
  // Records "never", disarms, and ends the session if that was recorded. REQUIRES: the turn.
  absl::Status EndAsNever(const std::string& reason);
  // Ends engine and arming; the VMM's RAM reads as zero where it is missing. Frees what was allocated
  // for it, unless the VMM has ended: another may have its files by now.
  void Disarm();
  void EmptyRamFiles();
  // Gives up the monitor and the RAM files. REQUIRES: the turn, and an engine that has stopped.
  void LetGoOfVmm();
  // kResourceExhausted: no thread could be made.
  absl::Status StartAttending();
  // Of these, the RAM files.
  void LetGoOfMemory();
  void Attend();
  void AwaitHandOver();
  // Waits for a change from `seen`, for `time` at most, and ends a guest that somebody starts here
  // meanwhile without this host's being its owner. False: nothing has happened.
  bool Watch(SessionState seen, std::chrono::milliseconds time);
  // Does what the source's record says.
  void Follow(RecordedOutcome recorded);
  void TryHandOver();
  void GiveUp(const std::string& reason);
  void AwaitMemory();
  // Tells in Progress, and in the log when it begins and ends, that memory cannot arrive now.
  void NoteWhetherMemoryArrives();
  // kFailedPrecondition: no memory is arriving, or all of it is here.
  absl::Status CheckMemoryArrives();
  // Gives up the source if an operator has asked for it, or if it is due by the policy. The session
  // may have ended afterwards.
  void ConsiderSourceLost();
  std::optional<SourceLostAction> TakeLossRequest();
  std::optional<SourceLostAction> DueByPolicy();
  // What came of it, in words.
  absl::StatusOr<std::string> GiveUpSource(SourceLostAction action);
  absl::StatusOr<std::string> PoisonMissing();
  absl::StatusOr<std::string> EndVmWithoutSource();
  // REQUIRES: kRunning, and lost_text_.
  void EndIncomplete();
  // Ends the session of a VM whose VMM has ended, for what `text` says; returns that.
  std::string EndCrashed(const std::string& text);
  void Commit();
  // Tells the source until it has understood. False: the session is being taken down.
  bool TellSource();
  // Logs a record that could not be written where nothing else can be done about it.
  void NoteRecorded(const absl::Status& recorded);
  // Ends the engine, and writes what its faults were if that is wanted.
  void SaveTrace();
  OwnershipRecord RecordOf(OwnershipMark mark) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status Write(OwnershipMark mark);
  // False once the session is being taken down.
  bool SleepUnlessStopped(std::chrono::milliseconds time);

  const DaemonParts& parts_;
  const SessionId session_;
  const std::string session_text_;
  const std::string source_address_;
  bool taken_up_ = false;  // by TakeUp(); then constant
  VmRecord record_;        // blocks and arming: until they are matched
  const ProcessIdentity vmm_identity_;
  SessionStatus status_;
  Turn turn_;

  // Set up by Prepare() or TakeUp(), then constant until Disarm() or Commit().
  std::optional<Keepsake> keepsake_;
  std::vector<VmBlock> blocks_;         // in the order of the session's layout
  std::vector<MappedRegion> regions_;   // of these; borrow their files
  std::unique_ptr<UserfaultDevice> device_;
  MemoryLayout layout_;
  std::vector<uint64_t> page_bytes_;   // of each region's backing
  std::unique_ptr<FaultTrace> trace_;  // nothing: not recorded
  std::unique_ptr<Engine> engine_;
  MachinePrint print_;  // at Prepare(); compared before its VMM is used up
  std::shared_ptr<VmmDriver> vmm_;  // used by the operation that has the turn
  VmmView view_;
  // By the turn, too: whether vmm_ has seen all since the load and nothing is under way to the VMM, and
  // for how long it has refused to start the guest.
  bool may_give_back_ = false;
  std::optional<std::chrono::steady_clock::time_point> refused_since_;
  std::string refusal_;
  std::string why_kept_;  // not given back, though it has refused for long

  // Of the attendant: what it has logged last.
  std::string arrival_error_;    // why memory cannot arrive now
  std::string hand_over_error_;  // why the guest could not be started
  std::string loss_error_;       // why the source could not be given up
  std::string settings_error_;   // why the load's settings are on still
  bool settings_ended_ = false;
  std::chrono::milliseconds settings_pause_{0};
  std::chrono::steady_clock::time_point settings_again_at_{};
  // Of the attendant, too.
  bool given_up_ = false;  // "incomplete" is recorded: what is missing is to be poisoned
  std::string lost_text_;  // not empty: that is done, and what it was

  // What an operator asks of the attendant.
  struct LossRequest {
    SourceLostAction action;
    bool taken = false;  // then it will be answered
    std::optional<absl::StatusOr<std::string>> answer = std::nullopt;
  };

  absl::Mutex mutex_;
  std::optional<LossRequest> loss_request_ ABSL_GUARDED_BY(mutex_);
  bool used_up_ ABSL_GUARDED_BY(mutex_) = false;   // OpenIncoming() was tried
  bool owner_ ABSL_GUARDED_BY(mutex_) = false;     // "owner" is being or was written
  bool aborting_ ABSL_GUARDED_BY(mutex_) = false;  // "never" is being or was written
  bool run_ ABSL_GUARDED_BY(mutex_) = true;
  bool refused_ ABSL_GUARDED_BY(mutex_) = false;  // by its VMM, when it was last told to start the guest
  // The VMM from OpenIncoming() until it is let go, for the attendant to watch.
  std::shared_ptr<VmmDriver> opened_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  DaemonThread attendant_;
};

}  // namespace postcopy
