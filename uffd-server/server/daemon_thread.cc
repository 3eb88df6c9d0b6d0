#include "server/daemon_thread.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "absl/status/status.h"

namespace postcopy {
namespace {

// False: it threw.
bool RunOnce(const std::string& name, const std::function<void()>& body) {
  try {
    body();
    return true;
  } catch (const std::exception& error) {
    spdlog::error("thread {}, {}; it is run again", name, error.what());
  }
  return false;
}

}  // namespace

absl::StatusOr<DaemonThread> DaemonThread::Start(const std::string& name,
                                                 std::function<void()> body,
                                                 std::chrono::milliseconds pause) {
  auto thread = QuietThread::Start(name, [name, body = std::move(body), pause] {
    while (!RunOnce(name, body)) std::this_thread::sleep_for(pause);
  });
  if (!thread.ok()) return absl::ResourceExhaustedError(thread.error().message);
  DaemonThread started;
  started.thread_.emplace(std::move(*thread));
  return started;
}

DaemonThread& DaemonThread::operator=(DaemonThread&& other) noexcept {
  Join();
  thread_.reset();
  if (other.thread_.has_value()) thread_.emplace(std::move(*other.thread_));
  return *this;
}

void DaemonThread::Join() {
  if (thread_.has_value()) thread_->Join();
}

}  // namespace postcopy
