// Whether a VMM that waits at the destination can take the machine that the source offers. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/memory_layout.h"
#include "relocation/peer.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// A sentence for each thing that is wrong with a VM by itself: it is not ours (the process that
// registered), cannot be moved, or is not in the state that its role needs. Empty: nothing.
std::vector<std::string> SourceFindings(const VmmDescription& vmm, int registered_pid);
std::vector<std::string> DestinationFindings(const VmmDescription& vmm, int registered_pid);

// A sentence for each difference: machine type, number of vCPUs, devices, what the guest can see of
// them, and RAM blocks unless `destination_layout` is null.
std::vector<std::string> FitFindings(const Offer& offer, const VmmDescription& destination,
                                     const MachinePrint& destination_print,
                                     const MemoryLayout* destination_layout);

// kFailedPrecondition with all findings; ok if there are none.
absl::Status StatusOfFindings(const std::vector<std::string>& findings);

// The findings as a status.
absl::Status CheckSource(const VmmDescription& vmm, int registered_pid);
absl::Status CheckDestination(const VmmDescription& vmm, int registered_pid);

absl::Status CheckFit(const Offer& offer, const VmmDescription& destination,
                      const MachinePrint& destination_print,
                      const MemoryLayout& destination_layout);

// kFailedPrecondition names what has come, gone or changed since `before`, or has begun since to
// stand in the way of a relocation. Asks the VMM; nothing has stopped yet.
absl::Status CheckUnchanged(VmmDriver& vmm, const MachinePrint& before);

}  // namespace postcopy
