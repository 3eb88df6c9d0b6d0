// How many bytes of bulk may be on their way: enough to keep the link busy, little enough that a
// demanded page does not wait behind them.
//
// The window follows the measured bandwidth-delay product, plus a queue so that it can find out whether
// the link carries more (a window-limited flow measures window / RTT; the extra lets it grow by that
// share each round trip until the link is the limit): a quarter of the round trip, or one millisecond if
// that is more. While demand is outstanding the queue is the quarter, whatever that is: so nearly
// nothing queues before a demanded page, and a guest that waits all the time over a long way does not
// bring the bulk to a stop. Never below kMinBytes, so that the bulk always ends, and never above
// kMaxBytes.
//
// The bandwidth is the largest measured lately: what the window or the scheduler kept idle is not the
// link's.
//
// Pure: time is an argument. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>

#include "core/fetch_queue.h"

namespace postcopy {

class GrantWindow {
 public:
  static constexpr uint64_t kMinBytes = 64 << 10;
  static constexpr uint64_t kMaxBytes = 16 << 20;
  static constexpr uint64_t kInitialBytes = 512 << 10;
  static constexpr std::chrono::microseconds kQueueTarget{1000};

  void OnGranted(uint64_t bytes) { in_flight_bytes_ += bytes; }
  // `bytes` that were granted at `granted_at` have come.
  void OnArrived(uint64_t bytes, TimePoint granted_at, TimePoint now);
  // From now on kMaxBytes, whoever waits and however long a demanded page then queues.
  void Hurry() { hurried_ = true; }
  // After a reconnect: nothing is on its way, and the way may be another. A hurry stays.
  void Reset();

  uint64_t in_flight_bytes() const { return in_flight_bytes_; }
  // Bytes that may be granted now.
  uint64_t RoomBytes(bool demand_outstanding) const;
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  static constexpr std::chrono::milliseconds kMeasuredOver{5};

  uint64_t in_flight_bytes_ = 0;
  uint64_t limit_bytes_ = kInitialBytes;
  uint64_t limit_under_demand_bytes_ = kMinBytes;
  std::chrono::nanoseconds shortest_round_trip_ = std::chrono::nanoseconds::max();  // of none yet
  TimePoint period_start_{};
  uint64_t period_bytes_ = 0;
  double bytes_per_ns_ = 0;
  bool hurried_ = false;
};

}  // namespace postcopy
