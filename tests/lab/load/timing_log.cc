#include "timing_log.h"

#include <algorithm>

namespace postcopy_lab {
namespace {

using std::chrono::microseconds;

constexpr int64_t kWindowUs = 100'000;
constexpr size_t kFailuresTold = 20;

int64_t SinceEpochUs(RealTime when) { return when.time_since_epoch().count(); }
double Milliseconds(int64_t us) { return static_cast<double>(us) / 1e3; }

// The value below which `share` of `values` lie; 0 of none. Reorders them.
uint32_t Quantile(std::vector<uint32_t>& values, double share) {
  if (values.empty()) return 0;
  const auto rank = static_cast<size_t>(share * static_cast<double>(values.size() - 1) + 0.5);
  const auto place = values.begin() + static_cast<std::ptrdiff_t>(rank);
  std::nth_element(values.begin(), place, values.end());
  return *place;
}

}  // namespace

void TimingLog::Finished(RealTime when, microseconds latency) {
  const microseconds gap = when - last_finish_;
  if (gap > longest_gap_) {
    longest_gap_ = gap;
    longest_gap_start_ = last_finish_;
  }
  last_finish_ = when;
  const auto latency_us = static_cast<uint32_t>(latency.count());
  finishes_.push_back({SinceEpochUs(when), latency_us, static_cast<uint32_t>(gap.count())});
  latencies_us_.push_back(latency_us);
}

void TimingLog::Failed(RealTime when, const std::string& path, const std::string& cause) {
  ++failed_;
  if (first_failures_.size() < kFailuresTold) {
    first_failures_.push_back(
        {{"time_ms", Milliseconds(SinceEpochUs(when))}, {"path", path}, {"cause", cause}});
  }
}

nlohmann::json TimingLog::Windows(RealTime end) const {
  nlohmann::json windows = nlohmann::json::array();
  auto next = finishes_.begin();
  const int64_t first_us = (SinceEpochUs(start_) + kWindowUs - 1) / kWindowUs * kWindowUs;
  while (next != finishes_.end() && next->time_us < first_us) ++next;
  for (int64_t from_us = first_us; from_us + kWindowUs <= SinceEpochUs(end); from_us += kWindowUs) {
    std::vector<uint32_t> latencies;
    uint32_t gap_us = 0;
    for (; next != finishes_.end() && next->time_us < from_us + kWindowUs; ++next) {
      latencies.push_back(next->latency_us);
      gap_us = std::max(gap_us, next->gap_us);
    }
    const auto slowest = std::max_element(latencies.begin(), latencies.end());
    windows.push_back({{"start_ms", from_us / 1000},
                       {"count", latencies.size()},
                       {"max_us", latencies.empty() ? 0 : *slowest},
                       {"p50_us", Quantile(latencies, 0.5)},
                       {"gap_us", gap_us}});
  }
  return windows;
}

nlohmann::json TimingLog::ToJson(RealTime end) const {
  // A run that ends in silence has a gap that no finished request has closed.
  const microseconds last_gap = end - last_finish_;
  const bool silent_end = last_gap > longest_gap_;
  std::vector<uint32_t> latencies = latencies_us_;
  return {
      {"start_ms", Milliseconds(SinceEpochUs(start_))},
      {"end_ms", Milliseconds(SinceEpochUs(end))},
      {"finished_requests", finished()},
      {"failed_requests", failed_},
      {"lost_connections", lost_connections_},
      {"longest_gap_ms", Milliseconds((silent_end ? last_gap : longest_gap_).count())},
      {"longest_gap_start_ms",
       Milliseconds(SinceEpochUs(silent_end ? last_finish_ : longest_gap_start_))},
      {"latency_p50_us", Quantile(latencies, 0.5)},
      {"latency_p99_us", Quantile(latencies, 0.99)},
      {"latency_max_us", Quantile(latencies, 1)},
      {"window_ms", kWindowUs / 1000},
      {"failures", first_failures_},
      {"windows", Windows(end)},
  };
}

}  // namespace postcopy_lab
