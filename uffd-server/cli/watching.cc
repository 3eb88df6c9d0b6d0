#include "cli/watching.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kInterval{500};

}  // namespace

Watching::Watching(RelocationClient& client, const std::string& vm, const PrinterOptions& printer)
    : printer_(printer), thread_([this, &client, vm](const std::stop_token& stop) {
        const absl::Status status = client.Watch(
            vm, kInterval, stop, [this](const v1::Progress& progress) { Take(progress); });
        {
          const absl::MutexLock lock(&mutex_);
          status_ = status;
          printer_.Clear();
        }
        ended_.Notify();
      }) {}

Watching::~Watching() { Stop(); }

void Watching::Stop() {
  thread_.request_stop();
  ended_.WaitForNotification();
}

absl::Status Watching::Join() {
  ended_.WaitForNotification();
  const absl::MutexLock lock(&mutex_);
  return status_;
}

v1::Progress Watching::last() {
  const absl::MutexLock lock(&mutex_);
  return printer_.view().last();
}

std::optional<std::chrono::steady_clock::time_point> Watching::committed_at() {
  const absl::MutexLock lock(&mutex_);
  return committed_at_;
}

void Watching::Say(const std::string& text) {
  const absl::MutexLock lock(&mutex_);
  printer_.Say(text);
}

std::string Watching::Summary(double total_ms) {
  const absl::MutexLock lock(&mutex_);
  return printer_.view().Summary(total_ms);
}

void Watching::Take(const v1::Progress& progress) {
  const auto now = std::chrono::steady_clock::now();
  const absl::MutexLock lock(&mutex_);
  printer_.Show(progress, now);
  if (progress.state() == v1::STATE_COMMITTED) committed_at_ = now;
}

}  // namespace postcopy
