#include "vmm/state_stream.h"

#include <cstring>
#include <exception>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "platform/unix_stream.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// One read; a Unix socket holds some 200 KiB.
constexpr size_t kReadBytes = size_t{256} << 10;

}  // namespace

StateStream::StateStream(UniqueFd socket, size_t limit_bytes)
    : socket_(std::move(socket)), limit_bytes_(limit_bytes) {
  Result<QuietThread> reader = QuietThread::Start("pc-state", [this] {
    try {
      Read();
    } catch (const std::exception& error) {
      Fail(error.what());
    }
  });
  if (reader.ok()) {
    reader_.emplace(std::move(*reader));
  } else {
    Fail(reader.error().message);
  }
}

StateStream::~StateStream() {
  ShutDown(socket_.get(), StreamDirection::kBoth);
  if (reader_.has_value()) reader_->Join();
}

void StateStream::Fail(const std::string& cause) {
  ShutDown(socket_.get(), StreamDirection::kBoth);
  Finish(absl::ResourceExhaustedError(absl::StrFormat("read device state: %s", cause)), {});
}

void StateStream::Read() {
  std::vector<char> buffer(kReadBytes);
  std::string bytes;
  for (;;) {
    const StreamResult result = ReceiveBytes(socket_.get(), buffer, milliseconds(-1));
    switch (result.outcome) {
      case StreamOutcome::kDone: break;
      case StreamOutcome::kClosed: return Finish(absl::OkStatus(), std::move(bytes));
      case StreamOutcome::kTimedOut:
      case StreamOutcome::kFailed:
        return Finish(absl::UnavailableError(absl::StrFormat("read device state: %s",
                                                             std::strerror(result.error))),
                      {});
    }
    if (bytes.size() + result.bytes > limit_bytes_) {
      return Fail(absl::StrFormat("it is larger than %d bytes", limit_bytes_));
    }
    bytes.append(buffer.data(), result.bytes);
  }
}

void StateStream::Finish(absl::Status result, std::string bytes) {
  MutexLock lock(mutex_);
  at_end_ = true;
  result_ = std::move(result);
  bytes_ = std::move(bytes);
  finished_.NotifyAll();
}

absl::StatusOr<std::string> StateStream::TakeAll(milliseconds timeout) {
  const auto deadline = steady_clock::now() + timeout;
  MutexLock lock(mutex_);
  while (!at_end_) {
    const auto now = steady_clock::now();
    if (now >= deadline) return absl::DeadlineExceededError("read device state: it did not end");
    finished_.WaitFor(mutex_, deadline - now);
  }
  if (!result_.ok()) return result_;
  return std::move(bytes_);
}

}  // namespace postcopy
