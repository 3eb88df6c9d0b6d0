// The daemon's relocations: finds the session that a call means and passes the call on.
//
// A thread of its own puts in order what an earlier daemon has left of VMs that register.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "relocation/lost_sessions.h"
#include "relocation/relocation.h"
#include "relocation/session_table.h"
#include "server/daemon_thread.h"

namespace postcopy {

class Relocator final : public Relocations {
 public:
  // kResourceExhausted: the system can't make its thread.
  static absl::StatusOr<std::unique_ptr<Relocator>> Start(DaemonParts parts);
  ~Relocator() override;

  std::vector<VmSummary> List() override;
  std::vector<Progress> Owed() override;
  absl::StatusOr<std::string> Prepare(const PrepareOptions& options) override;
  absl::StatusOr<std::vector<Finding>> Check(const PrepareOptions& options) override;
  absl::StatusOr<std::optional<double>> Switch(const std::string& session) override;
  absl::StatusOr<Progress> Stats(const std::string& vm) override;
  absl::StatusOr<Progress> WaitForChange(const std::string& vm, SessionState seen,
                                         std::chrono::milliseconds timeout) override;
  absl::Status Cancel(const std::string& vm) override;
  absl::Status Hurry(const std::string& vm) override;
  absl::StatusOr<std::string> SourceLost(const std::string& vm, SourceLostAction action) override;
  absl::StatusOr<std::string> DestinationLost(const std::string& vm) override;
  absl::Status Release(const std::string& vm) override;
  absl::StatusOr<RecoveryReport> Recover(const std::string& vm) override;

  absl::Status OnOffer(const Offer& offer, const HasGone& has_gone) override;
  absl::StatusOr<std::vector<std::string>> OnCheck(const Offer& offer) override;
  absl::Status OnOpenIncoming(const std::string& session) override;
  absl::Status OnStopped(const std::string& session) override;
  absl::Status OnLoad(const std::string& session, bool run, std::string_view device_state) override;
  absl::StatusOr<Resumed> OnHandOver(const std::string& session) override;
  absl::Status OnAbort(const std::string& session, std::string_view reason) override;
  absl::Status OnHurry(const std::string& session) override;
  absl::StatusOr<Progress> OnFigures(const std::string& session) override;
  absl::Status OnArrived(const std::string& session, const Progress& figures) override;
  absl::Status OnConfirmFenced(const std::string& session) override;
  absl::StatusOr<RecordedOutcome> OnQuery(const std::string& session, SessionRole role) override;

 private:
  explicit Relocator(DaemonParts parts);
  // Takes the VM's place for a new session, also from one that has died; kFailedPrecondition if it
  // is in use.
  absl::StatusOr<SessionTable::Reservation> Reserve(const std::string& vm);
  // kNotFound: the VM has no session here, or there is no such VM.
  absl::Status NoSessionOf(const std::string& vm);
  // VMs that have arrived and whose source has yet to be told; once they can be read.
  void NoteToSettle() ABSL_LOCKS_EXCLUDED(mutex_);
  void NoteRegistered(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  void SettleLostSessions() ABSL_LOCKS_EXCLUDED(mutex_);
  // Settles one VM's, unless a session has begun meanwhile; it is tried again if it cannot be yet.
  void SettleOne(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);

  const DaemonParts parts_;
  Turn lost_turn_;  // of lost_
  LostSessions lost_{parts_};
  SessionTable sessions_;
  absl::Mutex mutex_;
  std::set<std::string> unsettled_ ABSL_GUARDED_BY(mutex_);
  bool records_known_ ABSL_GUARDED_BY(mutex_) = false;  // their records could be read
  bool has_registered_ ABSL_GUARDED_BY(mutex_) = false;  // one of them, since they were looked at
  bool ending_ ABSL_GUARDED_BY(mutex_) = false;
  DaemonThread settler_;
};

}  // namespace postcopy
