// How many bytes of bulk may be on their way: enough to keep the link busy, little enough that a
// demanded page does not wait behind them.
//
// The window follows the measured bandwidth-delay product. It begins small and doubles each round
// trip as long as that brings more, so that it finds a fast or long link soon and never floods a
// slow one. Afterwards it is the product plus a queue, by which it finds out whether the link
// carries more (a window-limited flow measures window / RTT; the extra lets it grow by that share
// each round trip until the link is the limit): a quarter of the round trip, or one millisecond if
// that is more. While demand is outstanding the queue is the quarter, whatever that is: so nearly
// nothing queues before a demanded page, and a guest that waits all the time over a long way does
// not bring the bulk to a stop. Never below kMinBytes, so that the bulk always ends, and never
// above kMaxBytes.
//
// Before the guest runs only the machine's load waits for pages, one after the other, and all of
// that is downtime: the window is the product without a queue then, or kMinBeforeGuestBytes.
//
// The bandwidth is the largest measured lately, of what came between a grant and its arrival (the
// delivery rate of Cardwell et al., "BBR: Congestion-Based Congestion Control", ACM Queue 14(5),
// 2016, whose start this follows, too), or of rounds of five milliseconds where that is longer: in
// less the lanes' threads come to look when it suits the processor. What the window or the
// scheduler kept idle is not the link's. The round trip is the shortest ever, of grants or of
// single pages: it has the least queue in it.
//
// A grant is a part of the window, never all of it: that would leave the link idle for a round trip
// after each. And nothing is granted until a part is free: grants of just what each arrival frees
// get smaller and smaller, and stay so (the silly window syndrome, RFC 9293 section 3.8.6.2).
//
// Pure: time is an argument. Not thread-safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

#include "core/fetch_queue.h"

namespace postcopy {

class GrantWindow {
 public:
  static constexpr uint64_t kMinBytes = 64 << 10;
  static constexpr uint64_t kMinBeforeGuestBytes = 16 << 10;
  static constexpr uint64_t kMaxBytes = 16 << 20;
  static constexpr std::chrono::microseconds kQueueTarget{1000};
  // The largest and the smallest grant, as parts of the window.
  static constexpr uint64_t kGrantsInWindow = 4;
  static constexpr uint64_t kSmallestGrantsInWindow = 8;

  // What was so when a grant was sent.
  struct Sent {
    TimePoint when;
    uint64_t arrived_bytes = 0;  // of all that had come
  };
  Sent OnGranted(uint64_t bytes, TimePoint now) {
    in_flight_bytes_ += bytes;
    return {now, arrived_bytes_};
  }
  // `bytes` of that grant have come.
  void OnArrived(uint64_t bytes, const Sent& grant, TimePoint now);
  // A single page was answered after `time`.
  void OnRoundTrip(std::chrono::nanoseconds time) {
    shortest_round_trip_ = std::min(shortest_round_trip_, time);
  }
  // The guest runs from now on.
  void GuestRuns() { guest_runs_ = true; }
  // From now on kMaxBytes, whoever waits and however long a demanded page then queues.
  void Hurry() { hurried_ = true; }
  // After a reconnect: nothing is on its way, and the way may be another. A hurry stays, and so
  // does the guest.
  void Reset();

  uint64_t in_flight_bytes() const { return in_flight_bytes_; }
  // Bytes for one grant now, whole pages, `max_bytes` at most; 0: none before more has come.
  uint64_t GrantBytes(bool demand_outstanding, uint64_t max_bytes) const;
  uint64_t limit_bytes() const { return limit_bytes_; }

 private:
  uint64_t LimitNow(bool demand_outstanding) const;
  static constexpr std::chrono::milliseconds kShortestRound{5};
  void EndRound(TimePoint now);
  void SetLimits();

  uint64_t in_flight_bytes_ = 0;
  uint64_t arrived_bytes_ = 0;
  uint64_t limit_bytes_ = kMinBytes;
  uint64_t limit_under_demand_bytes_ = kMinBytes;
  uint64_t limit_before_guest_bytes_ = kMinBeforeGuestBytes;
  std::chrono::nanoseconds shortest_round_trip_ = std::chrono::nanoseconds::max();  // of none yet
  // A round: until something comes that was granted in it.
  TimePoint round_began_{};
  uint64_t round_began_at_bytes_ = 0;
  double round_bytes_per_ns_ = 0;  // the largest rate in it
  double bytes_per_ns_ = 0;
  double reached_bytes_per_ns_ = 0;  // at the end of the last round that brought more
  int rounds_without_growth_ = 0;    // since; until these are enough the window doubles
  bool guest_runs_ = false;
  bool hurried_ = false;
};

}  // namespace postcopy
