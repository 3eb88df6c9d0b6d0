#include "engine/precacher.h"

namespace postcopy {
namespace {

// A lane never has more grants out than this, whatever their size: grants around faults are small.
constexpr size_t kMaxGrantsPerLane = PageTransport::kMostGrants;

}  // namespace

Precacher::Precacher(PageMap& map, Fetcher& fetcher, PageTransport& transport)
    : map_(map), fetcher_(fetcher), transport_(transport), scheduler_(map) {
  lanes_.resize(transport.bulk_lanes());
  for (LaneGrants& lane : lanes_) lane.sent.resize(kMaxGrantsPerLane);
}

void Precacher::Start() {
  {
    MutexLock lock(mutex_);
    started_ = true;
    const auto way = transport_.RoundTrip();
    if (way > std::chrono::nanoseconds(0)) window_.OnRoundTrip(way);
  }
  GrantMore(0);
}

void Precacher::GuestRuns() {
  {
    MutexLock lock(mutex_);
    window_.GuestRuns();
    if (!started_) return;
  }
  GrantMore(0);
}

void Precacher::Hurry() {
  {
    MutexLock lock(mutex_);
    window_.Hurry();
    if (!started_) return;
  }
  GrantMore(0);
}

void Precacher::Restart() {
  {
    MutexLock lock(mutex_);
    for (LaneGrants& lane : lanes_) lane.count = 0;
    window_.Reset();
    scheduler_.Rewind();
  }
  GrantMore(0);
}

void Precacher::Pause() {
  MutexLock lock(mutex_);
  paused_ = true;
}

void Precacher::Resume() {
  {
    MutexLock lock(mutex_);
    paused_ = false;
    if (!started_) return;
  }
  GrantMore(0);
}

void Precacher::GrantAgain(RegionId region, PageRange range) {
  map_.ForgetGrants(region, range);
  MutexLock lock(mutex_);
  scheduler_.RewindTo({region, range.first});
}

void Precacher::OnFault(PageAddress page) {
  {
    MutexLock lock(mutex_);
    scheduler_.OnFault(page);
    if (!started_) return;
  }
  GrantMore(0);
}

void Precacher::OnRoundTrip(std::chrono::nanoseconds time) {
  MutexLock lock(mutex_);
  window_.OnRoundTrip(time);
}

void Precacher::OnArrived(size_t lane_index, PageRange range) {
  const TimePoint now = std::chrono::steady_clock::now();
  {
    MutexLock lock(mutex_);
    LaneGrants& lane = lanes_[lane_index];
    uint64_t pages = range.count_pages;
    while (pages > 0 && lane.count > 0) {
      LaneGrants::Sent& oldest = lane.sent[lane.oldest];
      const uint64_t answered = std::min(pages, oldest.pages);
      window_.OnArrived(answered * kPageBytes, oldest.window, now);
      oldest.pages -= answered;
      pages -= answered;
      if (oldest.pages == 0) {
        lane.oldest = (lane.oldest + 1) % kMaxGrantsPerLane;
        --lane.count;
      }
    }
  }
  GrantMore(lane_index);
}

void Precacher::GrantMore(size_t first_lane) {
  for (;;) {
    Grant grant;
    size_t chosen = first_lane;
    {
      MutexLock lock(mutex_);
      // The lane with the fewest grants out; the caller's own among equals.
      for (size_t i = 0; i < lanes_.size(); ++i) {
        if (lanes_[i].count < lanes_[chosen].count) chosen = i;
      }
      LaneGrants& lane = lanes_[chosen];
      const uint64_t pages =
          window_.GrantBytes(fetcher_.outstanding(), kGrantPages * kPageBytes) / kPageBytes;
      if (paused_ || pages == 0 || lane.count == kMaxGrantsPerLane) return;
      const auto next = scheduler_.Next(pages);
      if (!next.has_value()) return;
      grant = *next;
      lane.sent[(lane.oldest + lane.count) % kMaxGrantsPerLane] = {
          grant.range.count_pages,
          window_.OnGranted(grant.range.size_bytes(), std::chrono::steady_clock::now())};
      ++lane.count;
    }
    // Outside the lock. Two threads may send on one lane in the other order than they were noted
    // in; both grants are of the same moment, so only their round trip is swapped.
    if (!transport_.Grant(chosen, grant.region, grant.range)) return;
  }
}

}  // namespace postcopy
