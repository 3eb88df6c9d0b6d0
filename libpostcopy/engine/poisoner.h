// Gives up what is missing: poisons it, so that whoever touches it gets SIGBUS and nobody ever
// reads zeros in its place.
//
// Pages are marked before the kernel is told: whoever takes over from a process that ended in
// between finds every page that may be poisoned marked so, and poisons those again
// (EngineOptions::takes_up).
//
// Not responsible for that decision, nor for ending who fills pages.
#pragma once

#include <vector>

#include "core/page_map.h"
#include "engine/fault_device.h"

namespace postcopy {

// Poisons every page that is missing or only claimed; of huge pages all of one. Waiters are woken.
// May wait for the event reader, whose discards of pages that are not poisoned yet count.
//   kUnavailable  the VM's process is gone
//   kTimeout      discards are not read
//   another       the kernel's own. The rest is poisoned when it is called again
// REQUIRES: device.CanPoison(); nobody fills pages any more; a thread reads events.
Result<void> PoisonWhatIsMissing(FaultDevice& device, PageMap& map,
                                 const std::vector<MappedRegion>& regions);

}  // namespace postcopy
