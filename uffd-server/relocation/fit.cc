#include "relocation/fit.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace postcopy {
namespace {

absl::Status CheckProcess(const VmmDescription& vmm, int registered_pid) {
  if (vmm.pid != registered_pid) {
    return absl::FailedPreconditionError(
        absl::StrCat("its monitor socket belongs to process ", vmm.pid,
                     ", but the hook has registered process ", registered_pid,
                     ": that QEMU runs without libpostcopy-preload.so"));
  }
  if (!vmm.blockers.empty()) {
    return absl::FailedPreconditionError(absl::StrJoin(vmm.blockers, "; "));
  }
  return absl::OkStatus();
}

std::string OnlyIn(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::string> only;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only));
  return absl::StrJoin(only, ", ");
}

}  // namespace

absl::Status CheckSource(const VmmDescription& vmm, int registered_pid) {
  const absl::Status process = CheckProcess(vmm, registered_pid);
  if (!process.ok()) return process;
  switch (vmm.state) {
    case GuestState::kRunning:
    case GuestState::kPaused: return absl::OkStatus();
    case GuestState::kWaitsForIncoming:
      return absl::FailedPreconditionError("it waits for a machine itself (-incoming)");
    case GuestState::kHeldAtSwitchover:
    case GuestState::kSent:
    case GuestState::kOther: break;
  }
  return absl::FailedPreconditionError(absl::StrCat("its state is ", vmm.state_text));
}

absl::Status CheckDestination(const VmmDescription& vmm, int registered_pid) {
  const absl::Status process = CheckProcess(vmm, registered_pid);
  if (!process.ok()) return process;
  if (vmm.state == GuestState::kWaitsForIncoming) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "it does not wait for a machine (QEMU needs -S -incoming defer); its state is ",
      vmm.state_text));
}

absl::Status CheckFit(const Offer& offer, const VmmDescription& destination,
                      const MemoryLayout& destination_layout) {
  std::vector<std::string> differences;
  MemoryLayout source_layout;
  for (const OfferedRegion& offered : offer.ram) source_layout.regions.push_back(offered.region);
  const auto same_shape = CheckSameShape(source_layout, destination_layout);
  if (!same_shape.ok()) differences.push_back(same_shape.error().message);
  if (offer.machine_type != destination.machine_type) {
    differences.push_back(absl::StrCat("machine type ", offer.machine_type,
                                       " at the source and ", destination.machine_type,
                                       " at the destination"));
  }
  if (offer.vcpus != destination.vcpus) {
    differences.push_back(absl::StrCat(offer.vcpus, " vCPUs at the source and ", destination.vcpus,
                                       " at the destination"));
  }
  const std::string at_source = OnlyIn(offer.devices, destination.devices);
  const std::string at_destination = OnlyIn(destination.devices, offer.devices);
  if (!at_source.empty()) {
    differences.push_back(absl::StrCat("devices at the source only: ", at_source));
  }
  if (!at_destination.empty()) {
    differences.push_back(absl::StrCat("devices at the destination only: ", at_destination));
  }
  if (differences.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(differences, "; "));
}

}  // namespace postcopy
