// The clock of all times that are told: CLOCK_REALTIME, as other processes of the machine see it.
#ifndef POSTCOPY_LAB_LOAD_REAL_CLOCK_H_
#define POSTCOPY_LAB_LOAD_REAL_CLOCK_H_

#include <chrono>

#include "timing_log.h"

namespace postcopy_lab {

inline RealTime RealNow() {
  return std::chrono::time_point_cast<RealTime::duration>(std::chrono::system_clock::now());
}

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_REAL_CLOCK_H_
