// The sessions of this host's VMs. Each VM has one place, which at most one session that has not
// ended takes; the last one stays in it, so that its figures can still be asked for.
//
// Thread-safe; only Reserve() waits.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "relocation/destination_session.h"
#include "relocation/lost_sessions.h"
#include "relocation/source_session.h"

namespace postcopy {

class SessionTable {
 public:
  // A VM's place: one of the two, or neither while it is reserved.
  struct Place {
    std::shared_ptr<SourceSession> source = nullptr;
    std::shared_ptr<DestinationSession> destination = nullptr;
    bool reserved = false;
    bool settling = false;  // its last session, of another daemon's time, is being put in order

    bool Busy() const;
    // The process that its session is of has ended. REQUIRES: !Empty().
    bool HasVmmEnded() const {
      return source != nullptr ? source->HasVmmEnded() : destination->HasVmmEnded();
    }
    // See VmmView. REQUIRES: !Empty().
    std::string GuestState(std::chrono::milliseconds limit) const {
      return source != nullptr ? source->GuestState(limit) : destination->GuestState(limit);
    }
    bool Empty() const { return source == nullptr && destination == nullptr; }
  };

  // A VM's place that is kept for a session that is being made. Destroyed unfilled, whatever the
  // cause (an error, an exception), it frees the place. The table outlives it.
  class Reservation {
   public:
    Reservation(Reservation&& other) noexcept : table_(std::exchange(other.table_, nullptr)),
                                                vm_(std::move(other.vm_)) {}
    Reservation& operator=(Reservation&&) = delete;
    ~Reservation();
    // Puts the session that was made into the place. Once.
    void Fill(std::shared_ptr<SourceSession> source);
    void Fill(std::shared_ptr<DestinationSession> destination);

   private:
    friend class SessionTable;
    Reservation(SessionTable& table, std::string vm) : table_(&table), vm_(std::move(vm)) {}
    SessionTable* table_;  // null: filled, or moved from
    std::string vm_;
  };

  // Takes the VM's place; what was in it is released. Waits up to 15 s while the place is being
  // settled. kFailedPrecondition if it is in use, or is being settled still.
  absl::StatusOr<Reservation> Reserve(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);

  // A copy of the VM's place; an empty one if it has none.
  Place Find(const std::string& vm) ABSL_LOCKS_EXCLUDED(mutex_);
  // By a session's id; null: there is none.
  std::shared_ptr<SourceSession> FindSource(const std::string& session) ABSL_LOCKS_EXCLUDED(mutex_);
  std::shared_ptr<DestinationSession> FindDestination(const std::string& session)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // Of all VMs, also of those whose VMM has ended.
  std::vector<std::shared_ptr<SourceSession>> Sources() ABSL_LOCKS_EXCLUDED(mutex_);
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
  // Without a session the VM has no place any more.
  void Fill(const std::string& vm, Place place) ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::map<std::string, Place> places_ ABSL_GUARDED_BY(mutex_);  // by the VM's name on this host
};

}  // namespace postcopy
