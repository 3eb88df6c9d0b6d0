#include "core/grant_window.h"

#include <algorithm>

namespace postcopy {
namespace {

// Of the bandwidth that was measured before, if less is measured now.
constexpr double kKeptOfBandwidth = 0.9;

}  // namespace

void GrantWindow::OnArrived(uint64_t bytes, TimePoint granted_at, TimePoint now) {
  in_flight_bytes_ -= std::min(in_flight_bytes_, bytes);
  shortest_round_trip_ = std::min<std::chrono::nanoseconds>(shortest_round_trip_, now - granted_at);
  if (period_start_ == TimePoint{}) {
    period_start_ = now;
    return;
  }
  period_bytes_ += bytes;
  const auto period = now - period_start_;
  if (period < std::max<std::chrono::nanoseconds>(kMeasuredOver, shortest_round_trip_)) return;
  const double measured =
      static_cast<double>(period_bytes_) / static_cast<double>(std::chrono::nanoseconds(period).count());
  bytes_per_ns_ = std::max(measured, kKeptOfBandwidth * bytes_per_ns_);
  const auto sent_in = [&](std::chrono::nanoseconds time) {
    return std::clamp(static_cast<uint64_t>(bytes_per_ns_ * static_cast<double>(time.count())),
                      kMinBytes, kMaxBytes);
  };
  const auto quarter = shortest_round_trip_ / 4;
  limit_bytes_ =
      sent_in(shortest_round_trip_ + std::max<std::chrono::nanoseconds>(kQueueTarget, quarter));
  limit_under_demand_bytes_ = sent_in(shortest_round_trip_ + quarter);
  period_start_ = now;
  period_bytes_ = 0;
}

void GrantWindow::Reset() {
  const bool hurried = hurried_;
  *this = GrantWindow();
  hurried_ = hurried;
}

uint64_t GrantWindow::RoomBytes(bool demand_outstanding) const {
  const uint64_t limit = hurried_             ? kMaxBytes
                         : demand_outstanding ? limit_under_demand_bytes_
                                              : limit_bytes_;
  return limit > in_flight_bytes_ ? limit - in_flight_bytes_ : 0;
}

}  // namespace postcopy
