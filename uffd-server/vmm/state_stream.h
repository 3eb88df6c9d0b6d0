// The device state on its way out of a VMM: reads one end of a socket pair into memory.
//
// A thread of this object reads from the start, so that the VMM never waits for its reader (QEMU
// holds its big lock while it writes the state of a stopped machine). What the bytes mean is not
// known here.
#pragma once

#include <chrono>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/mutex.h"
#include "platform/quiet_thread.h"
#include "platform/unique_fd.h"

namespace postcopy {

class StateStream {
 public:
  // Reads `socket` until its end, at most `limit_bytes`. One byte more and the stream is shut, so
  // that the writer fails, and the result is kResourceExhausted. The same where no thread can be
  // made, and where memory runs out.
  StateStream(UniqueFd socket, size_t limit_bytes);
  // Shuts the stream: a writer that is still there gets EPIPE.
  ~StateStream();
  StateStream(const StateStream&) = delete;
  StateStream& operator=(const StateStream&) = delete;

  // Waits for the end of the stream and gives all of it to the caller, once. kDeadlineExceeded: the
  // end did not come; reading goes on.
  absl::StatusOr<std::string> TakeAll(std::chrono::milliseconds timeout);

 private:
  void Fail(const std::string& cause);
  void Read();
  void Finish(absl::Status result, std::string bytes);

  const UniqueFd socket_;
  const size_t limit_bytes_;

  Mutex mutex_;
  CondVar finished_;
  bool at_end_ POSTCOPY_GUARDED_BY(mutex_) = false;
  absl::Status result_ POSTCOPY_GUARDED_BY(mutex_);
  std::string bytes_ POSTCOPY_GUARDED_BY(mutex_);

  std::optional<QuietThread> reader_;  // joined by the destructor
};

}  // namespace postcopy
