// What replays have come to, for people and for programs.
#pragma once

#include <string>
#include <vector>

#include "perf/replay/simulation.h"

namespace postcopy::replay {

// Some lines of conditions and a table, a line a policy.
std::string ReplayTable(const Trace& trace, const Parameters& parameters,
                        const std::vector<Outcome>& outcomes);

// One JSON object: the conditions, and `policies`, an object each. Times in microseconds.
std::string ReplayJson(const Trace& trace, const Parameters& parameters,
                       const std::vector<Outcome>& outcomes);

}  // namespace postcopy::replay
