// What a session tells about itself: its state and its figures, as plain data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "core/session_state.h"

namespace postcopy {

struct Progress {
  std::string vm;
  std::string session;  // 32 hexadecimal digits
  std::string peer;     // the other daemon's control address
  SessionRole role = SessionRole::kSource;
  SessionState state = SessionState::kPrepared;
  std::string error;
  std::string note;     // how the VM ended, where it ended in order; empty otherwise
  uint64_t ram_bytes = 0;
  double elapsed_ms = 0;  // since Prepare, by the clock of the host that tells

  // Nothing: not known (yet) to the daemon that tells. What is about arriving memory is known to the
  // destination, and to the source while it can ask there.
  std::optional<uint64_t> data_bytes;
  std::optional<uint64_t> present_bytes;
  std::optional<uint64_t> faults;
  std::optional<double> fault_p50_us;  // of no fault: nothing
  std::optional<double> fault_p99_us;
  std::optional<double> fault_p999_us;
  std::optional<double> fault_max_us;
  std::optional<uint64_t> demand_bytes;
  std::optional<uint64_t> bulk_bytes;
  std::optional<uint64_t> zero_pages;
  std::optional<uint64_t> discarded_pages;
  std::optional<uint64_t> interruptions;  // times that the destination could not reach the source
  // STOP to RESUME, by the steady clocks of both hosts: relocation/downtime.h. Known to the source.
  std::optional<double> downtime_ms;
  // RESUME to the last page, or until now while memory arrives, by the destination's steady clock.
  std::optional<double> after_switch_ms;
  // Wall clocks of the hosts where it happened, for people: differences between hosts mean nothing.
  std::optional<int64_t> stopped_at_us;
  std::optional<int64_t> resumed_at_us;
  std::optional<int64_t> committed_at_us;
};

}  // namespace postcopy
