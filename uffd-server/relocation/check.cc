#include "relocation/check.h"

#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/session_id.h"
#include "relocation/fit.h"
#include "relocation/memory_match.h"
#include "relocation/memory_owners.h"
#include "relocation/own_addresses.h"

namespace postcopy {
namespace {

// A VM and its VMM, as far as they can be looked at; what can't be is a finding.
struct Looked {
  std::vector<std::string> findings;
  std::optional<VmRecord> record;
  std::optional<VmmDescription> description;
  MachinePrint print;
};

Looked LookAt(const DaemonParts& parts, VmRecord record) {
  Looked looked;
  if (!record.problem.empty()) {
    looked.findings.push_back(absl::StrCat("it runs unhooked: ", record.problem));
    return looked;
  }
  looked.record.emplace(std::move(record));
  auto vmm = parts.connect_vmm(*looked.record);
  if (!vmm.ok()) {
    looked.findings.emplace_back(vmm.status().message());
    return looked;
  }
  auto description = (*vmm)->Describe();
  if (!description.ok()) {
    looked.findings.emplace_back(description.status().message());
    return looked;
  }
  looked.description = *std::move(description);
  auto print = (*vmm)->Print();
  if (print.ok()) {
    looked.print = *std::move(print);
  } else {
    looked.findings.emplace_back(print.status().message());
  }
  return looked;
}

void Append(std::vector<std::string> more, std::vector<std::string>& findings) {
  for (std::string& each : more) findings.push_back(std::move(each));
}

// Of a VM that came here: armed for another session than one that has brought all of its memory.
void AddMissingMemory(const DaemonParts& parts, const VmRecord& record,
                      std::vector<std::string>& findings) {
  if (!record.arming.has_value()) return;
  const auto recorded = parts.store.Read(record.arming->session_id, SessionRole::kDestination);
  if (recorded.ok() && (recorded->mark == OwnershipMark::kCommitted ||
                        recorded->mark == OwnershipMark::kArrived)) {
    return;
  }
  findings.push_back(absl::StrCat("its memory has not arrived completely (session ",
                                  record.arming->session_id.ToString(), ")"));
}

}  // namespace

Offer DescribedOffer(const PrepareOptions& options, const VmmDescription& vmm, MachinePrint print) {
  Offer offer;
  offer.vm = options.destination_vm.empty() ? options.vm : options.destination_vm;
  offer.source_vm = options.vm;
  offer.machine_type = vmm.machine_type;
  offer.vmm_version = vmm.version;
  offer.vcpus = vmm.vcpus;
  offer.devices = vmm.devices;
  offer.print = std::move(print);
  return offer;
}

absl::StatusOr<std::vector<Finding>> CheckBothEnds(const DaemonParts& parts,
                                                   const PrepareOptions& options) {
  auto record = parts.registry.Find(options.vm);
  if (!record.ok()) return record.status();
  Looked looked = LookAt(parts, std::move(*record));
  std::vector<Finding> all;
  const auto add = [&all](const char* side, const std::vector<std::string>& findings) {
    for (const std::string& each : findings) all.push_back({side, each});
  };
  if (!looked.description.has_value()) {
    add("source", looked.findings);
    return all;
  }
  AddMissingMemory(parts, *looked.record, looked.findings);
  Append(SourceFindings(*looked.description, looked.record->pid()), looked.findings);
  Offer offer = DescribedOffer(options, *looked.description, std::move(looked.print));
  const auto matched = MatchMemory(*looked.record, *looked.description, SessionRole::kSource);
  if (!matched.ok()) {
    looked.findings.emplace_back(matched.status().message());
  } else {
    for (const Region& region : matched->layout.regions) offer.ram.push_back({region, {}});
  }
  auto addresses = AddressesFor(parts.addresses, options.destination);
  if (!addresses.ok()) looked.findings.emplace_back(addresses.status().message());
  add("source", looked.findings);
  if (!addresses.ok()) return all;  // the destination could not come back to this host
  offer.session = SessionId{}.ToString();
  offer.control_address = std::move(addresses->control);
  offer.data_addresses = std::move(addresses->data);
  const auto answer = parts.peers.ConnectDestination(options.destination)->Check(offer);
  if (answer.ok()) {
    add("destination", *answer);
  } else if (answer.status().code() == absl::StatusCode::kUnimplemented) {
    add("destination", {"its uffd-server is older than this one and cannot check"});
  } else if (all.empty()) {
    return answer.status();
  } else {
    add("destination", {std::string(answer.status().message())});
  }
  return all;
}

std::vector<std::string> CheckWaitingVm(const DaemonParts& parts, const Offer& offer) {
  auto record = parts.registry.Find(offer.vm);
  if (!record.ok()) return {std::string(record.status().message())};
  Looked looked = LookAt(parts, std::move(*record));
  if (!looked.description.has_value()) return looked.findings;
  Append(DestinationFindings(*looked.description, looked.record->pid()), looked.findings);
  const auto matched = MatchMemory(*looked.record, *looked.description, SessionRole::kDestination);
  if (!matched.ok()) {
    looked.findings.emplace_back(matched.status().message());
  } else if (const absl::Status own = CheckMemoryIsNotMapped(parts.registry, *looked.record,
                                                               matched->blocks);
             !own.ok()) {
    looked.findings.emplace_back(own.message());
  }
  // Without the source's RAM there is nothing to compare.
  const bool compare_ram = matched.ok() && !offer.ram.empty();
  Append(FitFindings(offer, *looked.description, looked.print,
                     compare_ram ? &matched->layout : nullptr),
         looked.findings);
  return looked.findings;
}

}  // namespace postcopy
