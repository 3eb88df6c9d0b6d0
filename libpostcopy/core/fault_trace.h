// What a session's faults were: kept while memory arrives, for whoever asks for a trace.
//
// Bounded: address space for a fixed number of faults is taken at the start, memory as faults come;
// those beyond it are counted and left out. Pure: time is an argument. Not responsible for the trace's form (uffd-server/trace/).
//
// Threads: Add() is wait-free and allocates nothing, for the page path. Each other Note...() is of
// one thread. What is read may be read when whoever notes has ended.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <type_traits>
#include <vector>

#include "core/fetch_queue.h"
#include "core/units.h"

namespace postcopy {

// How a fault was answered.
enum class FaultKind : uint8_t {
  kAsked,    // missing: the source was asked for it
  kJoined,   // missing, and asked for before or being filled: somebody else's fetch answered it
  kPresent,  // its content was here, its mapping was not (a minor fault)
  kZero,     // without content: given up by the guest, or the source has no data for it
};

struct FaultRecord {
  TimePoint read_at;  // when the kernel's event was read
  PageAddress page;
  FaultKind kind = FaultKind::kAsked;
  // Event read to wake; nothing: not known, or it never ended.
  std::optional<std::chrono::nanoseconds> wait;
};

static_assert(std::is_trivially_destructible_v<FaultRecord>);

class FaultTrace {
 public:
  // 48 MiB if all come; as many faults as a guest of 4 GiB has pages.
  static constexpr size_t kDefaultMostFaults = size_t{1} << 20;

  explicit FaultTrace(size_t most_faults = kDefaultMostFaults)
      : most_faults_(most_faults),
        room_(std::make_unique_for_overwrite<std::byte[]>(most_faults * sizeof(FaultRecord))) {}

  // Faults are answered from here on.
  void NoteStart(TimePoint when) { started_ = when; }
  // The source has data there.
  void NoteData(RegionId region, PageRange range) { data_.push_back({region, range}); }
  // What was noted of data so far will be noted again.
  void ForgetData() { data_.clear(); }
  // The guest runs from here on.
  void NoteResume(TimePoint when) { resumed_ = when; }
  void Add(const FaultRecord& fault) {
    const size_t at = next_.fetch_add(1, std::memory_order_relaxed);
    if (at < most_faults_) std::construct_at(records() + at, fault);
  }

  struct Data {
    RegionId region;
    PageRange range;
  };
  TimePoint started() const { return started_; }
  const std::vector<Data>& data() const { return data_; }
  std::optional<TimePoint> resumed() const { return resumed_; }
  // In the order of their events.
  std::vector<FaultRecord> Faults() const;
  uint64_t left_out() const;

 private:
  FaultRecord* records() const { return reinterpret_cast<FaultRecord*>(room_.get()); }

  TimePoint started_{};
  std::vector<Data> data_;
  std::optional<TimePoint> resumed_;
  const size_t most_faults_;
  const std::unique_ptr<std::byte[]> room_;  // of FaultRecords, which need no destruction
  std::atomic<size_t> next_{0};
};

}  // namespace postcopy
