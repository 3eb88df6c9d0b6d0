#include "perf/replay/touches.h"

#include <algorithm>
#include <map>
#include <set>

namespace postcopy::replay {
namespace {

using std::chrono::nanoseconds;

// Ends of waits in the recording, by time.
class Ends {
 public:
  // Times must not come in a later call before those of an earlier one.
  Moment At(nanoseconds time) {
    while (!coming_.empty() && coming_.begin()->first <= time) {
      latest_ = {coming_.begin()->second, coming_.begin()->first};
      coming_.erase(coming_.begin());
    }
    return latest_.has_value() ? Moment{latest_->touch, time - latest_->end} : Moment{{}, time};
  }
  void Add(size_t touch, nanoseconds end) { coming_.emplace(end, touch); }

 private:
  struct Ended {
    size_t touch;
    nanoseconds end;
  };
  std::multimap<nanoseconds, size_t> coming_;
  std::optional<Ended> latest_;
};

}  // namespace

Touches TouchesOf(const Trace& trace) {
  Touches found;
  Ends ends;
  std::set<PageAddress> seen;
  const auto note_resume_before = [&](nanoseconds time) {
    if (!found.resume.has_value() && trace.resumed.has_value() && *trace.resumed <= time) {
      found.resume = ends.At(*trace.resumed);
    }
  };
  for (const Trace::Fault& fault : trace.faults) {
    const bool needs_source = fault.kind == FaultKind::kAsked || fault.kind == FaultKind::kJoined;
    if (!needs_source || !seen.insert(fault.page).second) continue;
    note_resume_before(fault.time);
    found.touches.push_back({fault.page, ends.At(fault.time)});
    ends.Add(found.touches.size() - 1, fault.time + fault.wait.value_or(nanoseconds(0)));
  }
  note_resume_before(nanoseconds::max());
  return found;
}

}  // namespace postcopy::replay
