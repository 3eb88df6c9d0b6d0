// What a session tells about itself: its state and its figures, as plain data.
#pragma once

#include <cstdint>
#include <string>

#include "core/session_state.h"

namespace postcopy {

enum class SessionRole { kSource, kDestination };

struct Progress {
  std::string vm;
  std::string session;  // 32 hexadecimal digits
  std::string peer;     // the other daemon's control address
  SessionRole role = SessionRole::kSource;
  SessionState state = SessionState::kPrepared;
  std::string error;
  uint64_t ram_bytes = 0;
  uint64_t data_bytes = 0;
  uint64_t present_bytes = 0;
  uint64_t faults = 0;
  double fault_p50_us = 0;
  double fault_p99_us = 0;
  double fault_p999_us = 0;
  double fault_max_us = 0;
  uint64_t demand_bytes = 0;
  uint64_t bulk_bytes = 0;
  uint64_t zero_pages = 0;
  uint64_t discarded_pages = 0;
  uint64_t interruptions = 0;  // times that the destination could not reach the source
  double downtime_ms = 0;
  double elapsed_ms = 0;
  double after_switch_ms = 0;
  int64_t stopped_at_us = 0;
  int64_t resumed_at_us = 0;
  int64_t committed_at_us = 0;
};

}  // namespace postcopy
