// The source's page server: accepts lanes, knows the sessions, hands each lane to its session.
//
// One thread accepts on each address; each lane has a thread of its own (page_lane.h). Not
// responsible for which VM a session is, nor for when it may be served: the orchestrator says so.
// Thread-safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/session_id.h"
#include "platform/mutex.h"
#include "platform/quiet_thread.h"
#include "platform/unique_fd.h"
#include "server/page_source.h"
#include "wire/page_protocol.h"

namespace postcopy {

// What has data, region by region.
using HoleMap = std::vector<std::vector<PageRange>>;

// A session as its lanes see it.
struct ServedSession {
  ~ServedSession();  // waits for what is being found out

  // What has data, found out once, on a thread of the session's that the first call starts. Waits
  // for it for `timeout` at most; null: not known yet. Where memory was freed meanwhile, or cannot be
  // looked at, everything counts as having data. Fails if no thread can be made. REQUIRES: frozen.
  Result<const HoleMap*> AwaitMap(std::chrono::milliseconds timeout) POSTCOPY_EXCLUDES(map_mutex);
  // Whether the page had data when the VM stopped. True if that is not known.
  bool HadData(PageAddress page) POSTCOPY_EXCLUDES(map_mutex);
  // A page cannot be served, for `cause`: logged, once a session.
  void NoteUnreadable(RegionId region, PageIndex page, const std::string& cause);

  std::string name;  // for the log
  std::shared_ptr<PageSource> source;
  // Set once the VM has stopped and the source is frozen, read by each lane before it answers:
  // release and acquire.
  std::atomic<bool> frozen{false};
  // Content sent, for statistics.
  std::atomic<uint64_t> sent_bytes{0};
  std::atomic<bool> unreadable_noted{false};

  Mutex map_mutex;
  CondVar map_found;
  std::optional<QuietThread> finder POSTCOPY_GUARDED_BY(map_mutex);  // not set: nobody has asked yet
  std::optional<HoleMap> map POSTCOPY_GUARDED_BY(map_mutex);         // once set it stays
  bool map_is_exact POSTCOPY_GUARDED_BY(map_mutex) = false;
};

class PageServer {
 public:
  // Lanes at once, over all sessions. One more takes the place of the connection that has been silent
  // longest since it was made; where all have greeted it is closed at once. Of those that are ending there
  // are as many at most.
  static constexpr size_t kMaxLanes = 256;

  // Listens on every address ("host:port"; port 0 chooses one). Fails, naming the address, if one
  // cannot be had.
  static absl::StatusOr<std::unique_ptr<PageServer>> Listen(
      const std::vector<std::string>& addresses);
  ~PageServer();

  // Makes the session known. Its lanes may greet; requests are refused until Freeze().
  void Add(const SessionId& id, std::shared_ptr<PageSource> source);
  // Whether the session is known.
  bool Serves(const SessionId& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // The VM has stopped: its pages no longer change and may be served.
  void Freeze(const SessionId& id);
  // Forgets the session and ends its lanes. When it returns nothing reads the source any more, and
  // the server keeps no reference to it.
  void Remove(const SessionId& id);
  // Whether somebody is connected for the session.
  bool HasLanes(const SessionId& id) ABSL_LOCKS_EXCLUDED(mutex_);
  // As Remove(), but a later lane of the session is refused with `cause` instead of "no such session".
  // Remove() forgets that, too.
  void Withdraw(const SessionId& id, std::string cause) ABSL_LOCKS_EXCLUDED(mutex_);
  // Where it listens, with the ports that were chosen.
  const std::vector<std::string>& addresses() const { return addresses_; }

 private:
  struct LaneThread {
    UniqueFd socket;  // closed under mutex_ when it has ended
    std::string peer;
    std::shared_ptr<ServedSession> session;  // from its greeting to its end; guarded by mutex_
    const ServedSession* served = nullptr;   // the same, until the lane has released it
    bool closing = false;                    // another takes its place; guarded by mutex_
    bool ended = false;                      // guarded by mutex_
    std::optional<QuietThread> thread;
  };

  PageServer() = default;
  void AcceptLoop(int listener);
  void RunLane(LaneThread& lane);
  absl::StatusOr<std::shared_ptr<ServedSession>> Join(LaneThread& lane, const wire::Hello& hello)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void End(const SessionId& id, std::optional<std::string> cause) ABSL_LOCKS_EXCLUDED(mutex_);
  void ReapEnded() ABSL_LOCKS_EXCLUDED(mutex_);
  // Gives a connection a lane and a thread, or closes it.
  void StartLane(UniqueFd socket, std::string peer) ABSL_LOCKS_EXCLUDED(mutex_);
  // False: as many lanes as may be have greeted.
  bool MakeRoom() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  std::vector<std::string> addresses_;
  std::vector<UniqueFd> listeners_;
  std::vector<QuietThread> acceptors_;

  absl::Mutex mutex_;
  std::map<SessionId, std::shared_ptr<ServedSession>> sessions_ ABSL_GUARDED_BY(mutex_);
  std::map<SessionId, std::string> withdrawn_ ABSL_GUARDED_BY(mutex_);  // and why
  std::list<LaneThread> lanes_ ABSL_GUARDED_BY(mutex_);  // a list: threads refer to its elements
  uint64_t refused_ ABSL_GUARDED_BY(mutex_) = 0;
  std::chrono::steady_clock::time_point refusal_logged_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace postcopy
