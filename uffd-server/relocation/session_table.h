// The sessions of this host's VMs. Each VM has one place, which at most one session that has not
// ended takes; the last one stays in it, so that its figures can still be asked for.
//
// Thread-safe; only Reserve() waits.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "relocation/destination_session.h"
#include "relocation/lost_sessions.h"
#include "relocation/source_session.h"

namespace postcopy {

class SessionTable {
 public:
  // A VM's place: one of the two, or neither while it is reserved.
  struct Place {
    std::shared_ptr<SourceSession> source;
    std::shared_ptr<DestinationSession> destination;
    bool reserved = false;
    bool settling = false;  // its last session, of another daemon's time, is being put in order

    bool Busy() const;
    bool Empty() const { return source == nullptr && destination == nullptr; }
  };

  // Takes the VM's place for a session that is being made, until Fill(); what was in it is let go.
  // Waits up to 15 s while the place is being settled. kFailedPrecondition if it is in use, or is
  // being settled still.
  absl::Status Reserve(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  // Puts the session that was made into its place; one of them, or none if it could not be made.
  void Fill(const std::string& vm, std::shared_ptr<SourceSession> source,
            std::shared_ptr<DestinationSession> destination) ABSL_LOCKS_EXCLUDED(mutex_);

  // A copy of the VM's place; an empty one if it has none.
  Place Find(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  // By a session's id; null: there is none.
  std::shared_ptr<SourceSession> FindSource(const std::string& session) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<DestinationSession> FindDestination(const std::string& session)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether a session that is recorded as prepared may still be handed over: only a live one can.
  bool MayHandOver(const std::string& session, const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);

  // The VM has registered. Whether it has had no place: then it has one now, which is being settled
  // until EndSettling().
  bool NoteRegistered(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  // Whether no session is in the VM's place; then it is being settled until EndSettling().
  bool BeginSettling(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  // Puts what was taken up into the VM's place. It stays, empty, if nothing was and it is not done.
  void EndSettling(const std::string& vm, LostSessions::Settled settled)
      ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  absl::Mutex mutex_;
  std::map<std::string, Place> places_ ABSL_GUARDED_BY(mutex_);  // by the VM's name on this host
};

}  // namespace postcopy
