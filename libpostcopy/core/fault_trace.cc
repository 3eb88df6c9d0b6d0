#include "core/fault_trace.h"

#include <algorithm>

namespace postcopy {

std::vector<FaultRecord> FaultTrace::Faults() const {
  const size_t kept = std::min(next_.load(std::memory_order_relaxed), faults_.size());
  std::vector<FaultRecord> faults(faults_.begin(), faults_.begin() + static_cast<ptrdiff_t>(kept));
  std::stable_sort(faults.begin(), faults.end(), [](const FaultRecord& a, const FaultRecord& b) {
    return a.read_at < b.read_at;
  });
  return faults;
}

uint64_t FaultTrace::left_out() const {
  const size_t seen = next_.load(std::memory_order_relaxed);
  return seen - std::min(seen, faults_.size());
}

}  // namespace postcopy
