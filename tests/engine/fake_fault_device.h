// A FaultDevice without a kernel: events come from the test, outcomes from a script, calls are
// recorded.
//
// Events are fed in batches; a reader gets a whole batch and then "nothing pending", so a test
// decides what is read together. Without a script every install succeeds. Thread-safe.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "engine/fault_device.h"

namespace postcopy {

class FakeFaultDevice final : public FaultDevice {
 public:
  enum class Call { kRead, kCopy, kWriteFile, kContinue, kZero, kWake, kUnregister, kPoison };
  struct Record {
    Call call;
    PageRange pages;
    std::byte first_byte{};  // kCopy and kWriteFile: of the content
    friend bool operator==(const Record&, const Record&) = default;
  };
  struct Scripted {
    InstallOutcome outcome;
    uint64_t done_pages = 0;
    int error = 0;
  };

  // --- the test's ----------------------------------------------------------------------------------

  // The next calls of this kind return these, in order; then they succeed again.
  void Script(Call call, std::vector<Scripted> outcomes) {
    const std::lock_guard lock(mutex_);
    auto& queue = scripts_[static_cast<size_t>(call)];
    queue.insert(queue.end(), outcomes.begin(), outcomes.end());
  }
  void FeedBatch(std::vector<FaultEvent> events) {
    const std::lock_guard lock(mutex_);
    batches_.push_back({std::move(events), 0});
    changed_.notify_all();
  }
  // From now on ReadEvents() fails with this.
  void FailReads(Error error) {
    const std::lock_guard lock(mutex_);
    read_error_ = std::move(error);
    woken_ = true;
    changed_.notify_all();
  }
  // Called, on the reader's thread, by a Wait() that finds no batch.
  void OnIdle(std::function<void()> on_idle) { on_idle_ = std::move(on_idle); }
  // Called inside each install, before it returns: what happens meanwhile.
  void During(Call call, std::function<void()> meanwhile) {
    meanwhile_[static_cast<size_t>(call)] = std::move(meanwhile);
  }
  // Blocks until another thread has handled every batch and sleeps in Wait().
  void AwaitIdle() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ && batches_.empty() && !woken_; });
  }
  // What was called since the last time, without the reads.
  std::vector<Record> TakeCalls() {
    const std::lock_guard lock(mutex_);
    std::vector<Record> calls;
    for (const Record& record : std::exchange(records_, {})) {
      if (record.call != Call::kRead) calls.push_back(record);
    }
    return calls;
  }
  std::vector<Record> TakeCallsAndReads() {
    const std::lock_guard lock(mutex_);
    return std::exchange(records_, {});
  }
  // From now on the kernel is one without UFFDIO_POISON.
  void ForbidPoison() { can_poison_ = false; }
  // Recording allocates; a test that counts allocations turns it off.
  void StopRecording() { recording_ = false; }

  static FaultEvent Missing(const MappedRegion& region, uint64_t page) {
    return {FaultEvent::Kind::kMissing, region.AddressOf({page}) + 17, 0, false};
  }
  static FaultEvent Minor(const MappedRegion& region, uint64_t page) {
    return {FaultEvent::Kind::kMinor, region.AddressOf({page}), 0, false};
  }
  static FaultEvent Remove(const MappedRegion& region, PageRange pages) {
    return {FaultEvent::Kind::kRemove, region.AddressOf(pages.first), region.AddressOf(pages.end()),
            false};
  }

  // --- FaultDevice ---------------------------------------------------------------------------------

  bool Wait() override {
    if (on_idle_) {
      const std::lock_guard lock(mutex_);
      if (!batches_.empty()) return true;
    }
    if (on_idle_) {
      on_idle_();
      return false;
    }
    std::unique_lock lock(mutex_);
    waiting_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return !batches_.empty() || woken_; });
    waiting_ = false;
    woken_ = false;
    return !batches_.empty();
  }
  void WakeUp() override {
    const std::lock_guard lock(mutex_);
    woken_ = true;
    changed_.notify_all();
  }
  Result<size_t> ReadEvents(std::span<FaultEvent> events) override {
    Note(Call::kRead, {});
    const std::lock_guard lock(mutex_);
    if (read_error_.has_value()) return *read_error_;
    if (batches_.empty()) return size_t{0};
    Batch& batch = batches_.front();
    const size_t count = std::min(events.size(), batch.events.size() - batch.read);
    for (size_t i = 0; i < count; ++i) events[i] = batch.events[batch.read + i];
    batch.read += count;
    if (count == 0) batches_.pop_front();
    return count;
  }
  InstallResult Copy(const MappedRegion&, PageIndex first,
                     std::span<const std::byte> content) override {
    return Install(Call::kCopy, {first, content.size() / kPageBytes}, content[0]);
  }
  int WriteFile(const MappedRegion&, PageIndex first, std::span<const std::byte> content) override {
    return Install(Call::kWriteFile, {first, content.size() / kPageBytes}, content[0]).error;
  }
  InstallResult Continue(const MappedRegion&, PageRange range) override {
    return Install(Call::kContinue, range);
  }
  InstallResult Zero(const MappedRegion&, PageRange range) override {
    return Install(Call::kZero, range);
  }
  InstallResult Poison(const MappedRegion&, PageRange range) override {
    return Install(Call::kPoison, range);
  }
  bool CanPoison() override { return can_poison_; }
  void Wake(const MappedRegion&, PageRange range) override { Note(Call::kWake, range); }
  Result<void> Unregister(const MappedRegion& region) override {
    Note(Call::kUnregister, {{0}, region.size_bytes / kPageBytes});
    return {};
  }

 private:
  static constexpr size_t kCalls = 8;
  struct Batch {
    std::vector<FaultEvent> events;
    size_t read;
  };

  void Note(Call call, PageRange pages, std::byte first_byte = {}) {
    if (!recording_) return;
    const std::lock_guard lock(mutex_);
    records_.push_back({call, pages, first_byte});
  }
  InstallResult Install(Call call, PageRange pages, std::byte first_byte = {}) {
    Note(call, pages, first_byte);
    const auto index = static_cast<size_t>(call);
    if (meanwhile_[index]) meanwhile_[index]();
    const std::lock_guard lock(mutex_);
    if (scripts_[index].empty()) return {InstallOutcome::kInstalled, pages.size_bytes(), 0};
    const Scripted scripted = scripts_[index].front();
    scripts_[index].pop_front();
    return {scripted.outcome, scripted.done_pages * kPageBytes, scripted.error};
  }

  std::function<void()> on_idle_;
  std::function<void()> meanwhile_[kCalls];
  bool recording_ = true;
  bool can_poison_ = true;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Batch> batches_;
  std::deque<Scripted> scripts_[kCalls];
  std::vector<Record> records_;
  std::optional<Error> read_error_;
  bool woken_ = false;
  bool waiting_ = false;
};

// As a line of text, for messages of failed tests: "continue [4,+2)".
inline void PrintTo(const FakeFaultDevice::Record& record, std::ostream* out) {
  static constexpr const char* kNames[] = {"read", "copy", "write",      "continue",
                                           "zero", "wake", "unregister", "poison"};
  *out << kNames[static_cast<size_t>(record.call)] << " [" << record.pages.first.value << ",+"
       << record.pages.count_pages << ")";
}

}  // namespace postcopy
