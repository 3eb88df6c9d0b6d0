#include "relocation/fit.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace postcopy {
namespace {

std::vector<std::string> ProcessFindings(const VmmDescription& vmm, int registered_pid) {
  // What another process says of itself is of no use.
  if (vmm.pid != registered_pid) {
    return {absl::StrCat("its monitor socket belongs to process ", vmm.pid,
                         ", but the hook has registered process ", registered_pid,
                         ": that QEMU runs without libpostcopy-preload.so")};
  }
  return vmm.blockers;
}

std::string OnlyIn(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  std::vector<std::string> only;
  std::set_difference(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(only));
  return absl::StrJoin(only, ", ");
}

// Names of the RAM blocks that the two layouts have: their sizes are compared as such.
std::set<std::string> GuestRamBlocks(const Offer& offer, const MemoryLayout* destination_layout) {
  std::set<std::string> names;
  for (const OfferedRegion& offered : offer.ram) names.insert(offered.region.name);
  if (destination_layout != nullptr) {
    for (const auto& region : destination_layout->regions) names.insert(region.name);
  }
  return names;
}

}  // namespace

std::vector<std::string> SourceFindings(const VmmDescription& vmm, int registered_pid) {
  std::vector<std::string> findings = ProcessFindings(vmm, registered_pid);
  switch (vmm.state) {
    case GuestState::kRunning:
    case GuestState::kPaused: return findings;
    case GuestState::kWaitsForIncoming:
      findings.push_back("it waits for a machine itself (-incoming)");
      return findings;
    case GuestState::kHeldAtSwitchover:
    case GuestState::kSent:
    case GuestState::kOther: break;
  }
  if (findings.empty()) findings.push_back(absl::StrCat("its state is ", vmm.state_text));
  return findings;
}

std::vector<std::string> DestinationFindings(const VmmDescription& vmm, int registered_pid) {
  std::vector<std::string> findings = ProcessFindings(vmm, registered_pid);
  if (vmm.state == GuestState::kWaitsForIncoming) return findings;
  findings.push_back(absl::StrCat(
      "it does not wait for a machine (QEMU needs -S -incoming defer); its state is ",
      vmm.state_text));
  return findings;
}

std::vector<std::string> FitFindings(const Offer& offer, const VmmDescription& destination,
                                     const MachinePrint& destination_print,
                                     const MemoryLayout* destination_layout) {
  std::vector<std::string> differences;
  if (destination_layout != nullptr) {
    MemoryLayout source_layout;
    for (const OfferedRegion& offered : offer.ram) source_layout.regions.push_back(offered.region);
    const auto same_shape = CheckSameShape(source_layout, *destination_layout);
    if (!same_shape.ok()) differences.push_back(same_shape.error().message);
  }
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
  const std::set<std::string> guest_ram = GuestRamBlocks(offer, destination_layout);
  std::vector<std::string> of_prints =
      PrintDifferences(WithoutRamBlocks(offer.print, guest_ram), offer.vmm_version,
                       WithoutRamBlocks(destination_print, guest_ram), destination.version);
  std::move(of_prints.begin(), of_prints.end(), std::back_inserter(differences));
  return differences;
}

absl::Status StatusOfFindings(const std::vector<std::string>& findings) {
  if (findings.empty()) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrJoin(findings, "; "));
}

absl::Status CheckSource(const VmmDescription& vmm, int registered_pid) {
  return StatusOfFindings(SourceFindings(vmm, registered_pid));
}

absl::Status CheckDestination(const VmmDescription& vmm, int registered_pid) {
  return StatusOfFindings(DestinationFindings(vmm, registered_pid));
}

absl::Status CheckFit(const Offer& offer, const VmmDescription& destination,
                      const MachinePrint& destination_print,
                      const MemoryLayout& destination_layout) {
  return StatusOfFindings(FitFindings(offer, destination, destination_print, &destination_layout));
}

absl::Status CheckUnchanged(VmmDriver& vmm, const MachinePrint& before) {
  const auto description = vmm.Describe();
  if (!description.ok()) return description.status();
  const auto now = vmm.Print();
  if (!now.ok()) return now.status();
  std::vector<std::string> findings = description->blockers;
  for (const std::string& change : PrintChanges(before, *now)) {
    findings.push_back(absl::StrCat("since it was prepared, ", change));
  }
  return StatusOfFindings(findings);
}

}  // namespace postcopy
