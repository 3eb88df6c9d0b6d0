// In which order the bulk brings pages: what a replay compares.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/grant_scheduler.h"
#include "core/page_map.h"
#include "core/units.h"

namespace postcopy::replay {

class Policy {
 public:
  virtual ~Policy() = default;

  // The guest waits for this page.
  virtual void OnFault(PageAddress page) = 0;
  // What is pushed next: pages that PageMap::TakeUngranted() gave out, at most `max_pages`.
  // Nothing: all have been pushed.
  virtual std::optional<Grant> Next(uint64_t max_pages) = 0;
};

// A policy by its name on the command line; `make` takes the state of the pages, which outlives it.
struct PolicyKind {
  std::string name;
  std::function<std::unique_ptr<Policy>(PageMap& map)> make;
};

//   address        in address order, whatever the guest does
//   around-faults  the order of the daemon: core/grant_scheduler.h itself
const std::vector<PolicyKind>& AllPolicies();

}  // namespace postcopy::replay
