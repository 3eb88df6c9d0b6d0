// Everything that a relocation would be refused for, at either end, without a change at either.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "relocation/relocation.h"
#include "relocation/session.h"

namespace postcopy {

// What the source tells of its VM; session, addresses and extents are left to the caller.
Offer DescribedOffer(const PrepareOptions& options, const VmmDescription& vmm, MachinePrint print);

// At the source: the findings of both ends. kNotFound: the VM is not registered here.
absl::StatusOr<std::vector<Finding>> CheckBothEnds(const DaemonParts& parts,
                                                   const PrepareOptions& options);

// At the destination: the findings about the VM that waits there.
std::vector<std::string> CheckWaitingVm(const DaemonParts& parts, const Offer& offer);

}  // namespace postcopy
