// One connection to a QEMU machine protocol (QMP) monitor: commands with a time limit, and events.
//
// Knows the protocol's objects, ids and errors; what the commands mean is the caller's. A thread of
// this object reads the socket, so that a closed connection is noticed at once. Thread-safe:
// commands of several threads share the connection (QEMU serves one client a monitor; a second
// connection would wait for a greeting that never comes).
//
// Errors name the operation, the monitor and the cause: "qmp migrate at /run/a.sock: no answer
// within 5 s". kDeadlineExceeded: no answer within the limit; the command may still be carried out
// later, its late answer is dropped. kUnavailable: the connection has ended; every later call fails
// so too. kUnimplemented: QEMU does not know the command. kNotFound: QEMU knows no such device or
// object. kFailedPrecondition: QEMU refused for another reason, in its own words.
//
// Locks are libpostcopy's and not abseil's: ThreadSanitizer cannot see into Debian's abseil, which
// is not instrumented, and would report every field that absl::Mutex guards.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/mutex.h"
#include "platform/quiet_thread.h"
#include "platform/unique_fd.h"
#include "vmm/json_access.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

struct QmpEvent {
  std::string name;
  Json data;
  EventTime time;  // QEMU's own stamp
};

class QmpClient {
 public:
  // A longer message (a JSON object) ends the connection, as does one of more than kMaxJsonLevels.
  // QEMU's longest answers here are some 10 KiB.
  static constexpr size_t kMaxMessageBytes = size_t{4} << 20;
  // Of events, read or not, the newest so many are kept, and so many bytes of their messages.
  static constexpr size_t kMaxQueuedEvents = 1024;
  static constexpr size_t kMaxQueuedEventBytes = kMaxMessageBytes;
  // A VMM that sends more messages, or more bytes, within a second is cut off: reading them would cost
  // this daemon a core. QEMU sends most of its events once a second at most.
  static constexpr size_t kMaxMessagesPerSecond = 20'000;
  static constexpr size_t kMaxBytesPerSecond = size_t{64} << 20;

  // Connects to the monitor socket at `path`, waits for the greeting and leaves negotiation mode.
  // `timeout` holds for each of the three. kFailedPrecondition: another process than `pid` listens
  // there; nothing was written to it.
  static absl::StatusOr<std::unique_ptr<QmpClient>> Connect(const std::string& path, int pid,
                                                            std::chrono::milliseconds timeout);
  // The same over a socket that is connected already; `name` stands in messages.
  static absl::StatusOr<std::unique_ptr<QmpClient>> Open(UniqueFd socket, std::string name,
                                                         std::chrono::milliseconds timeout);
  // No other thread may be inside a call. Ends the connection; the VM goes on.
  ~QmpClient();
  QmpClient(const QmpClient&) = delete;
  QmpClient& operator=(const QmpClient&) = delete;

  // Sends the command and waits for its answer: the "return" member. `arguments` is an object.
  absl::StatusOr<Json> Command(std::string_view command, Json arguments,
                               std::chrono::milliseconds timeout);
  // The VMM has not yet answered a command whose caller has timed out.
  bool OwesAnAnswer() const;
  // getfd: gives QEMU a duplicate of `fd`, which stays the caller's, under the name `fd_name` of
  // this monitor. A later "fd:<fd_name>" in a command uses it up.
  absl::Status PassDescriptor(const std::string& fd_name, int fd,
                              std::chrono::milliseconds timeout);

  // A cursor before the events that are yet to come.
  uint64_t EventCursor() const;
  // The first event at or after `cursor`, which moves behind it; waits at most `timeout` for one.
  absl::StatusOr<QmpEvent> NextEvent(uint64_t& cursor, std::chrono::milliseconds timeout);

  // The process that listens on the monitor socket; 0: not known. It is QEMU, also where QEMU was given
  // a descriptor that listened already: it calls listen() again.
  int peer_pid() const { return peer_pid_; }
  const std::string& name() const { return name_; }

 private:
  using TimePoint = std::chrono::steady_clock::time_point;

  QmpClient(UniqueFd socket, std::string name);
  // kResourceExhausted: no thread could be made.
  absl::Status StartReading();

  absl::StatusOr<Json> Exchange(std::string_view command, Json arguments, int passed_fd,
                                std::chrono::milliseconds timeout);
  absl::Status Send(const std::string& line, int passed_fd, TimePoint deadline);
  absl::Status WaitForGreeting(std::chrono::milliseconds timeout);
  // False when the deadline has passed.
  bool WaitUntil(TimePoint deadline) POSTCOPY_REQUIRES(mutex_);
  absl::Status Failure(std::string_view operation, const absl::Status& cause) const;

  // The reading thread. Whatever ends it ends the connection.
  void ReadMessages();
  absl::Status Take(std::string_view text);
  // Not ok: the VMM sends more than may be. Of the reading thread only.
  absl::Status CountMessage(size_t bytes);
  void Queue(QmpEvent event, size_t message_bytes) POSTCOPY_REQUIRES(mutex_);
  void EndConnection(absl::Status cause);

  const UniqueFd socket_;
  const std::string name_;
  int peer_pid_ = 0;

  mutable Mutex mutex_;
  CondVar changed_;  // any of the fields below
  bool greeted_ POSTCOPY_GUARDED_BY(mutex_) = false;
  // Whose turn it is to send; the socket is written without the mutex.
  bool sending_ POSTCOPY_GUARDED_BY(mutex_) = false;
  absl::Status ended_ POSTCOPY_GUARDED_BY(mutex_);  // ok while the connection stands
  uint64_t last_id_ POSTCOPY_GUARDED_BY(mutex_) = 0;
  // Commands that somebody waits for; an answer to any other id is dropped.
  std::map<uint64_t, std::optional<Json>> waiting_ POSTCOPY_GUARDED_BY(mutex_);
  std::set<uint64_t> unanswered_ POSTCOPY_GUARDED_BY(mutex_);  // ids of commands whose caller has timed out
  struct QueuedEvent {
    QmpEvent event;
    size_t message_bytes;
  };
  std::deque<QueuedEvent> events_ POSTCOPY_GUARDED_BY(mutex_);
  size_t event_bytes_ POSTCOPY_GUARDED_BY(mutex_) = 0;  // sum of message_bytes
  uint64_t first_event_ POSTCOPY_GUARDED_BY(mutex_) = 0;  // cursor of events_.front()

  // Of the reading thread: what has come in the second that began then.
  TimePoint second_began_{};
  size_t second_messages_ = 0;
  size_t second_bytes_ = 0;

  std::optional<QuietThread> reader_;  // joined by the destructor
};

// "5 s", "250 ms".
std::string DurationText(std::chrono::milliseconds duration);

// What is wrong with a monitor socket that another process than the VM's listens on: it is not
// talked to, whoever put it there.
absl::Status ForeignMonitor(const std::string& path, int listener_pid, int vmm_pid);

}  // namespace postcopy
