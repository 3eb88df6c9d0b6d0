#include "core/fault_trace.h"

#include <algorithm>

namespace postcopy {

std::vector<FaultRecord> FaultTrace::Faults() const {
  const size_t kept = std::min(next_.load(std::memory_order_relaxed), most_faults_);
  std::vector<FaultRecord> faults(records(), records() + kept);
  std::stable_sort(faults.begin(), faults.end(), [](const FaultRecord& a, const FaultRecord& b) {
    return a.read_at < b.read_at;
  });
  return faults;
}

uint64_t FaultTrace::left_out() const {
  const size_t seen = next_.load(std::memory_order_relaxed);
  return seen - std::min(seen, most_faults_);
}

}  // namespace postcopy
