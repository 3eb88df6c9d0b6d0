#include "core/grant_window.h"

#include <algorithm>
#include <utility>

namespace postcopy {
namespace {

// Of the bandwidth that was measured before, if a round has measured less.
constexpr double kKeptOfBandwidth = 0.9;
// More than this is growth; a link that gives none so often is full.
constexpr double kGrowth = 1.25;
constexpr int kRoundsWithoutGrowth = 3;

double Rate(uint64_t bytes, std::chrono::nanoseconds time) {
  return static_cast<double>(bytes) / static_cast<double>(time.count());
}

}  // namespace

void GrantWindow::OnArrived(uint64_t bytes, const Sent& grant, TimePoint now) {
  in_flight_bytes_ -= std::min(in_flight_bytes_, bytes);
  arrived_bytes_ += bytes;
  const std::chrono::nanoseconds took = now - grant.when;
  OnRoundTrip(took);
  if (round_began_ == TimePoint{}) {
    round_began_ = now;
    round_began_at_bytes_ = arrived_bytes_;
  }
  const bool round_ends =
      grant.arrived_bytes >= round_began_at_bytes_ && now - round_began_ >= kShortestRound;
  double rate = 0;
  if (took >= kShortestRound) rate = Rate(arrived_bytes_ - grant.arrived_bytes, took);
  if (round_ends) {
    rate = std::max(rate, Rate(arrived_bytes_ - round_began_at_bytes_, now - round_began_));
  }
  round_bytes_per_ns_ = std::max(round_bytes_per_ns_, rate);
  if (round_ends) EndRound(now);
  if (!round_ends && rate <= bytes_per_ns_) return;
  bytes_per_ns_ = std::max(bytes_per_ns_, rate);
  SetLimits();
}

void GrantWindow::EndRound(TimePoint now) {
  bytes_per_ns_ = std::max(std::exchange(round_bytes_per_ns_, 0), kKeptOfBandwidth * bytes_per_ns_);
  round_began_ = now;
  round_began_at_bytes_ = arrived_bytes_;
  if (bytes_per_ns_ >= kGrowth * reached_bytes_per_ns_) {
    reached_bytes_per_ns_ = bytes_per_ns_;
    rounds_without_growth_ = 0;
  } else if (rounds_without_growth_ < kRoundsWithoutGrowth) {
    ++rounds_without_growth_;
  }
}

void GrantWindow::SetLimits() {
  const auto sent_in = [&](std::chrono::nanoseconds time, uint64_t min_bytes) {
    return std::clamp(static_cast<uint64_t>(bytes_per_ns_ * static_cast<double>(time.count())),
                      min_bytes, kMaxBytes);
  };
  const bool doubles = rounds_without_growth_ < kRoundsWithoutGrowth;
  const auto growth = doubles ? shortest_round_trip_ : std::chrono::nanoseconds(0);
  const auto queue = std::max(growth, shortest_round_trip_ / 4);
  limit_bytes_ = sent_in(
      shortest_round_trip_ + std::max<std::chrono::nanoseconds>(kQueueTarget, queue), kMinBytes);
  limit_under_demand_bytes_ = sent_in(shortest_round_trip_ + queue, kMinBytes);
  limit_before_guest_bytes_ = sent_in(shortest_round_trip_ + growth, kMinBeforeGuestBytes);
}

void GrantWindow::Reset() {
  const auto [guest_runs, hurried] = std::pair{guest_runs_, hurried_};
  *this = GrantWindow();
  guest_runs_ = guest_runs;
  hurried_ = hurried;
}

uint64_t GrantWindow::LimitNow(bool demand_outstanding) const {
  if (hurried_) return kMaxBytes;
  if (!guest_runs_) return limit_before_guest_bytes_;
  return demand_outstanding ? limit_under_demand_bytes_ : limit_bytes_;
}

uint64_t GrantWindow::GrantBytes(bool demand_outstanding, uint64_t max_bytes) const {
  const uint64_t limit = LimitNow(demand_outstanding);
  const uint64_t room = limit - std::min(limit, in_flight_bytes_);
  if (room < std::min(limit / kSmallestGrantsInWindow, max_bytes)) return 0;
  return std::min({room, limit / kGrantsInWindow, max_bytes}) / kPageBytes * kPageBytes;
}

}  // namespace postcopy
