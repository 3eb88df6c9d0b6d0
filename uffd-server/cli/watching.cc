#include "cli/watching.h"

#include <utility>

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kInterval{500};

bool IsFinalState(v1::State state) {
  return state == v1::STATE_COMMITTED || state == v1::STATE_ROLLED_BACK ||
         state == v1::STATE_CANCELLED || state == v1::STATE_FAILED;
}

}  // namespace

Watching::Watching(RelocationClient& client, const std::string& vm, const PrinterOptions& printer,
                   std::function<void(const v1::Progress&)> each)
    : each_(std::move(each)), printer_(printer), thread_([this, &client, vm](const std::stop_token& stop) {
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
  if (each_ != nullptr && !IsFinalState(progress.state())) each_(progress);
  const absl::MutexLock lock(&mutex_);
  if (each_ != nullptr) {
    printer_.Note(progress);
  } else {
    printer_.Show(progress, now);
  }
  if (progress.state() == v1::STATE_COMMITTED) committed_at_ = now;
}

}  // namespace postcopy
