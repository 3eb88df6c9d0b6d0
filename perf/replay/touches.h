// What a guest does on its own account, read from a trace: which pages it needs first, and how long
// after an earlier wait.
//
// Of each page its first fault counts, `asked` or `joined`: these needed the source. When a touch
// comes depends on how long the guest has waited before, which is what a replay changes. So each
// one hangs on the latest wait that had ended in the recording when it came, and follows that
// wait's end by the same time as there. For one vCPU that is exact; of several each is taken to
// continue whoever waited last. A wait that is not known counts as none.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <vector>

#include "core/units.h"
#include "trace/trace_text.h"

namespace postcopy::replay {

struct Moment {
  std::optional<size_t> after;       // the touch whose wait's end it follows; nothing: time 0
  std::chrono::nanoseconds delay{};  // from there
};

struct Touch {
  PageAddress page;
  Moment when;
};

struct Touches {
  std::vector<Touch> touches;    // each hangs on an earlier one
  std::optional<Moment> resume;  // of the guest; nothing: it never ran
};

Touches TouchesOf(const Trace& trace);

}  // namespace postcopy::replay
