// Whether a VMM that waits at the destination can take the machine that the source offers. Pure.
#pragma once

#include "absl/status/status.h"
#include "core/memory_layout.h"
#include "relocation/peer.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// What a description must be before anything else is looked at: ours (the process that registered),
// movable, and in the state that its role needs. kFailedPrecondition says what is wrong.
absl::Status CheckSource(const VmmDescription& vmm, int registered_pid);
absl::Status CheckDestination(const VmmDescription& vmm, int registered_pid);

// kFailedPrecondition, naming every difference: machine type, number of vCPUs, devices, RAM blocks.
absl::Status CheckFit(const Offer& offer, const VmmDescription& destination,
                      const MemoryLayout& destination_layout);

}  // namespace postcopy
