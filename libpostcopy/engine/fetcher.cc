#include "engine/fetcher.h"

namespace postcopy {

void Fetcher::Ask(PageAddress page, TimePoint fault_time) {
  uint32_t id;
  {
    MutexLock lock(mutex_);
    id = queue_.Add(page, fault_time);
    ++faults_;
    outstanding_.store(queue_.size(), std::memory_order_relaxed);
  }
  // If the lane is down the request stays in the queue: the guest waits until there is one again.
  transport_.Request(id, page);
}

void Fetcher::OnDemandServed(PageAddress page) {
  const TimePoint now = std::chrono::steady_clock::now();
  MutexLock lock(mutex_);
  if (const auto fetch = queue_.TakePage(page)) waits_.Add(now - fetch->fault_time);
  outstanding_.store(queue_.size(), std::memory_order_relaxed);
}

void Fetcher::Answered(uint32_t id, PageAddress page) {
  const TimePoint now = std::chrono::steady_clock::now();
  MutexLock lock(mutex_);
  if (const auto fetch = queue_.Take(id, page)) waits_.Add(now - fetch->fault_time);
  outstanding_.store(queue_.size(), std::memory_order_relaxed);
}

FaultFigures Fetcher::Figures() {
  MutexLock lock(mutex_);
  return {faults_, waits_.count(), waits_.QuantileUs(0.50), waits_.QuantileUs(0.99), waits_.max_us()};
}

}  // namespace postcopy
