#include "engine/fetcher.h"

#include <algorithm>

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

void Fetcher::AskAlong(PageAddress page) { transport_.Request(FetchQueue::kNoId, page); }

bool Fetcher::AskAgain(PageAddress page) {
  std::optional<uint32_t> id;
  {
    MutexLock lock(mutex_);
    id = queue_.IdOf(page);
  }
  if (id.has_value()) transport_.Request(*id, page);
  return id.has_value();
}

bool Fetcher::IsAwaited(RegionId region, PageRange range) {
  MutexLock lock(mutex_);
  bool found = false;
  queue_.ForEach([&](uint32_t, const Fetch& fetch) {
    found |= fetch.page.region == region && range.contains(fetch.page.page);
  });
  return found;
}

void Fetcher::OnDemandServed(PageAddress page) {
  MutexLock lock(mutex_);
  Note(queue_.TakePage(page));
}

void Fetcher::Answered(uint32_t id, PageAddress page) {
  MutexLock lock(mutex_);
  Note(queue_.Take(id, page));
}

std::optional<std::chrono::nanoseconds> Fetcher::Waited(uint32_t id, PageAddress page) {
  MutexLock lock(mutex_);
  const Fetch* fetch = queue_.Find(id, page);
  if (fetch == nullptr) return std::nullopt;
  return std::chrono::steady_clock::now() - fetch->fault_time;
}

void Fetcher::Note(const std::optional<Fetch>& fetch) {
  if (fetch.has_value()) {
    const auto wait = std::chrono::steady_clock::now() - fetch->fault_time;
    waits_.Add(wait);
    if (trace_ != nullptr) trace_->Add({fetch->fault_time, fetch->page, FaultKind::kAsked, wait});
  }
  outstanding_.store(queue_.size(), std::memory_order_relaxed);
}

void Fetcher::TraceUnanswered() {
  if (trace_ == nullptr) return;
  MutexLock lock(mutex_);
  queue_.ForEach([this](uint32_t, const Fetch& fetch) {
    trace_->Add({fetch.fault_time, fetch.page, FaultKind::kAsked, std::nullopt});
  });
}

std::vector<std::pair<uint32_t, PageAddress>> Fetcher::Waiting() {
  std::vector<std::pair<TimePoint, std::pair<uint32_t, PageAddress>>> found;
  {
    MutexLock lock(mutex_);
    queue_.ForEach([&](uint32_t id, const Fetch& fetch) {
      found.push_back({fetch.fault_time, {id, fetch.page}});
    });
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::pair<uint32_t, PageAddress>> waiting;
  for (const auto& each : found) waiting.push_back(each.second);
  return waiting;
}

FaultFigures Fetcher::Figures() {
  MutexLock lock(mutex_);
  return {faults_,
          waits_.count(),
          waits_.QuantileUs(0.50),
          waits_.QuantileUs(0.99),
          waits_.QuantileUs(0.999),
          waits_.max_us()};
}

}  // namespace postcopy
