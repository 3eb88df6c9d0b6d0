#include "perf/replay/replay_text.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace postcopy::replay {
namespace {

double Ms(std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1e6; }
double Us(std::chrono::nanoseconds time) { return static_cast<double>(time.count()) / 1e3; }
double Mib(uint64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

uint64_t DataBytes(const Trace& trace) {
  uint64_t bytes = 0;
  for (const Trace::Data& data : trace.data) bytes += data.range.size_bytes();
  return bytes;
}

long CountOf(const Trace& trace, FaultKind kind) {
  return std::count_if(trace.faults.begin(), trace.faults.end(),
                       [&](const Trace::Fault& fault) { return fault.kind == kind; });
}

}  // namespace

std::string ReplayTable(const Trace& trace, const Parameters& parameters,
                        const std::vector<Outcome>& outcomes) {
  std::string text = absl::StrFormat(
      "trace of %s, session %s: %.1f MiB with data; faults: %d asked, %d joined, %d present, %d "
      "zero, "
      "%d left out\n"
      "link of %.0f Mbit/s, round trip %.0f us, %.1f us to install a page\n\n"
      "%-14s %8s %8s %11s %11s %11s %11s %11s %10s\n",
      trace.vm, trace.session, Mib(DataBytes(trace)), CountOf(trace, FaultKind::kAsked),
      CountOf(trace, FaultKind::kJoined), CountOf(trace, FaultKind::kPresent),
      CountOf(trace, FaultKind::kZero), trace.left_out, parameters.bytes_per_s * 8 / 1e6,
      Us(parameters.round_trip), Us(parameters.install), "policy", "touches", "faults", "wait ms",
      "longest ms", "needed MiB", "wasted MiB", "twice MiB", "all here ms");
  for (const Outcome& outcome : outcomes) {
    absl::StrAppend(&text,
                    absl::StrFormat("%-14s %8d %8d %11.2f %11.3f %11.2f %11.2f %11.2f %10.1f\n",
                                    outcome.policy, outcome.touches, outcome.faults_left,
                                    Ms(outcome.wait), Ms(outcome.longest_wait),
                                    Mib(outcome.needed_bytes), Mib(outcome.wasted_bytes),
                                    Mib(outcome.sent_twice_bytes), Ms(outcome.last_page)));
  }
  return text;
}

std::string ReplayJson(const Trace& trace, const Parameters& parameters,
                       const std::vector<Outcome>& outcomes) {
  nlohmann::json policies = nlohmann::json::array();
  for (const Outcome& outcome : outcomes) {
    policies.push_back({{"policy", outcome.policy},
                        {"touches", outcome.touches},
                        {"faults_left", outcome.faults_left},
                        {"wait_us", Us(outcome.wait)},
                        {"longest_wait_us", Us(outcome.longest_wait)},
                        {"last_touch_us", Us(outcome.last_touch)},
                        {"last_page_us", Us(outcome.last_page)},
                        {"needed_bytes", outcome.needed_bytes},
                        {"wasted_bytes", outcome.wasted_bytes},
                        {"sent_twice_bytes", outcome.sent_twice_bytes}});
  }
  const nlohmann::json all = {{"vm", trace.vm},
                              {"session", trace.session},
                              {"data_bytes", DataBytes(trace)},
                              {"recorded_asked", CountOf(trace, FaultKind::kAsked)},
                              {"left_out", trace.left_out},
                              {"bytes_per_s", parameters.bytes_per_s},
                              {"round_trip_us", Us(parameters.round_trip)},
                              {"install_us", Us(parameters.install)},
                              {"policies", policies}};
  // Names may hold any bytes.
  return all.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace postcopy::replay
