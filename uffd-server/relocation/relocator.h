// The daemon's relocations: finds the session that a call means and passes the call on.
//
// A VM has at most one session that has not ended. The last session of each VM is kept, so that its
// figures can still be asked for. A thread of its own puts in order what an earlier daemon has left of
// VMs that register.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "relocation/destination_session.h"
#include "relocation/lost_sessions.h"
#include "relocation/relocation.h"
#include "relocation/source_session.h"

namespace postcopy {

class Relocator final : public Relocations {
 public:
  explicit Relocator(DaemonParts parts);
  ~Relocator() override;

  std::vector<VmSummary> List() override;
  absl::StatusOr<std::string> Prepare(const PrepareOptions& options) override;
  absl::StatusOr<double> Switch(const std::string& session) override;
  absl::StatusOr<Progress> Stats(const std::string& vm) override;
  absl::StatusOr<Progress> WaitForChange(const std::string& vm, SessionState seen,
                                         std::chrono::milliseconds timeout) override;
  absl::Status Cancel(const std::string& vm) override;
  absl::Status Hurry(const std::string& vm) override;
  absl::StatusOr<std::string> SourceLost(const std::string& vm, SourceLostAction action) override;
  absl::Status Release(const std::string& vm) override;
  absl::StatusOr<RecoveryReport> Recover(const std::string& vm) override;

  absl::Status OnOffer(const Offer& offer) override;
  absl::Status OnOpenIncoming(const std::string& session) override;
  absl::Status OnLoad(const std::string& session, bool run, std::string_view device_state) override;
  absl::StatusOr<int64_t> OnHandOver(const std::string& session) override;
  absl::Status OnAbort(const std::string& session, std::string_view reason) override;
  absl::Status OnHurry(const std::string& session) override;
  absl::StatusOr<Progress> OnFigures(const std::string& session) override;
  absl::Status OnArrived(const std::string& session, const Progress& figures) override;
  absl::StatusOr<RecordedOutcome> OnQuery(const std::string& session) override;

 private:
  // One of the two, or neither while Prepare() or OnOffer() works on it.
  struct Slot {
    std::shared_ptr<SourceSession> source;
    std::shared_ptr<DestinationSession> destination;
    bool preparing = false;
    bool settling = false;  // its last session, of another daemon's time, is being put in order

    bool Busy() const;
  };
  // Takes the VM's place for a new session; kFailedPrecondition if it is in use.
  absl::Status Reserve(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  void Fill(const std::string& vm, Slot slot) ABSL_LOCKS_EXCLUDED(mutex_);
  Slot Find(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<SourceSession> FindSource(const std::string& session)
      ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<DestinationSession> FindDestination(const std::string& session)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether a session that is recorded as prepared may still be handed over: only a live one can.
  bool MayHandOver(const std::string& session, const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  std::string GuestStateText(const std::string& qmp_path);
  void NoteRegistered(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  void SettleLostSessions() ABSL_LOCKS_EXCLUDED(mutex_);
  // Settles one VM's, unless a session has begun meanwhile; it is tried again if it cannot be yet.
  void SettleOne(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);

  const DaemonParts parts_;
  Turn lost_turn_;  // of lost_
  LostSessions lost_{parts_};
  absl::Mutex mutex_;
  std::map<std::string, Slot> slots_ ABSL_GUARDED_BY(mutex_);  // by the VM's name on this host
  std::set<std::string> unsettled_ ABSL_GUARDED_BY(mutex_);
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread settler_;
};

}  // namespace postcopy
