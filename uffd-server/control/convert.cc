#include "control/convert.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/address.h"
#include "core/memory_layout.h"
#include "core/printable_text.h"
#include "core/session_id.h"

namespace postcopy {
namespace {

constexpr std::array<std::pair<SessionState, v1::State>, kSessionStates> kStates{{
    {SessionState::kPrepared, v1::STATE_PREPARED},
    {SessionState::kStopping, v1::STATE_STOPPING},
    {SessionState::kStopped, v1::STATE_STOPPED},
    {SessionState::kHandedOver, v1::STATE_HANDED_OVER},
    {SessionState::kRunning, v1::STATE_RUNNING},
    {SessionState::kCommitted, v1::STATE_COMMITTED},
    {SessionState::kRolledBack, v1::STATE_ROLLED_BACK},
    {SessionState::kCancelled, v1::STATE_CANCELLED},
    {SessionState::kUnknown, v1::STATE_UNKNOWN},
    {SessionState::kFailed, v1::STATE_FAILED},
}};

constexpr std::array<std::pair<RecordedOutcome, std::string_view>, 8> kRecords{{
    {RecordedOutcome::kNone, "none"},
    {RecordedOutcome::kPrepared, "prepared"},
    {RecordedOutcome::kNever, "never"},
    {RecordedOutcome::kHandedOver, "handed-over"},
    {RecordedOutcome::kRolledBack, "rolled-back"},
    {RecordedOutcome::kOwner, "owner"},
    {RecordedOutcome::kCommitted, "committed"},
    {RecordedOutcome::kUnreadable, "unreadable"},
}};

constexpr const char* kSource = "source";
constexpr const char* kDestination = "destination";

// Not responsible for whether there is something of that name.
absl::Status CheckText(const char* field, std::string_view text, size_t limit_bytes) {
  if (text.size() > limit_bytes) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: at most %d bytes expected, not %d", field,
                                                      limit_bytes, text.size()));
  }
  if (IsPrintable(text)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: not printable text", field));
}

absl::Status CheckName(const char* field, std::string_view name) {
  if (name.empty()) return absl::InvalidArgumentError(absl::StrFormat("%s: it is empty", field));
  return CheckText(field, name, kMaxNameBytes);
}

absl::StatusOr<OfferedRegion> RegionFromProto(const v1::RamBlock& block) {
  OfferedRegion offered{{block.name(), block.size_bytes()}, {}};
  if (block.data_extents_size() % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("ram %s: an extent without its count", block.name()));
  }
  const uint64_t pages = offered.region.count_pages();
  uint64_t behind = 0;  // the page behind the last extent
  offered.data.reserve(static_cast<size_t>(block.data_extents_size() / 2));
  for (int i = 0; i < block.data_extents_size(); i += 2) {
    const uint64_t first = block.data_extents(i);
    const uint64_t count = block.data_extents(i + 1);
    // Ascending and disjoint, so that all of them together are no more work than the region is.
    if (count == 0 || first < behind) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "ram %s: extent of %u pages at %u is empty or begins before the end of the last, %u",
          block.name(), count, first, behind));
    }
    if (first > pages || count > pages - first) {
      return absl::InvalidArgumentError(
          absl::StrFormat("ram %s: extent of %u pages at %u lies beyond its %u pages", block.name(),
                          count, first, pages));
    }
    behind = first + count;
    offered.data.push_back({PageIndex{first}, count});
  }
  return offered;
}

absl::Status CheckPrint(const v1::OfferRequest& message) {
  if (message.print_size() > static_cast<int>(kMaxPrintProperties)) {
    return absl::InvalidArgumentError(absl::StrFormat("offer: %d machine properties, at most %d",
                                                      message.print_size(), kMaxPrintProperties));
  }
  const std::string* before = nullptr;
  for (const v1::MachineProperty& property : message.print()) {
    if (property.name().size() > kMaxPrintTextBytes ||
        property.value().size() > kMaxPrintTextBytes) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "offer: a machine property has more than %d bytes", kMaxPrintTextBytes));
    }
    if (before != nullptr && property.name() <= *before) {
      return absl::InvalidArgumentError("offer: the machine properties are not in order");
    }
    before = &property.name();
  }
  return absl::OkStatus();
}

absl::Status CheckOfferFields(const v1::OfferRequest& message) {
  if (auto status = CheckSession(message.session()); !status.ok()) return status;
  if (auto status = CheckName("vm", message.vm()); !status.ok()) return status;
  if (auto status = CheckName("source_vm", message.source_vm()); !status.ok()) return status;
  if (message.devices_size() > kMaxListedNames || message.data_addresses_size() > kMaxListedNames) {
    return absl::InvalidArgumentError(
        absl::StrFormat("offer: more than %d devices or data addresses", kMaxListedNames));
  }
  for (const std::string& device : message.devices()) {
    if (auto status = CheckText("device", device, kMaxDeviceBytes); !status.ok()) return status;
  }
  for (const v1::RamBlock& block : message.ram()) {
    if (auto status = CheckName("ram", block.name()); !status.ok()) return status;
  }
  if (auto status = CheckText("machine_type", message.machine_type(), kMaxNameBytes); !status.ok()) {
    return status;
  }
  if (auto status = CheckText("vmm_version", message.vmm_version(), kMaxNameBytes); !status.ok()) {
    return status;
  }
  for (const std::string& address : message.data_addresses()) {
    if (const auto parsed = Address::Parse(address, {}); !parsed.ok()) {
      return absl::InvalidArgumentError("offer: data address " + parsed.error().message);
    }
  }
  if (const auto parsed = Address::Parse(message.control_address(), {}); !parsed.ok()) {
    return absl::InvalidArgumentError("offer: control address " + parsed.error().message);
  }
  if (auto status = CheckPrint(message); !status.ok()) return status;
  int64_t extents = 0;
  for (const v1::RamBlock& block : message.ram()) extents += block.data_extents_size() / 2;
  if (extents > kMaxOfferedExtents) {
    return absl::InvalidArgumentError(
        absl::StrFormat("offer: %d extents, at most %d", extents, kMaxOfferedExtents));
  }
  return absl::OkStatus();
}

}  // namespace

v1::State ToProto(SessionState state) {
  for (const auto& [plain, message] : kStates) {
    if (plain == state) return message;
  }
  return v1::STATE_UNSPECIFIED;
}

absl::StatusOr<SessionState> FromProto(v1::State state) {
  for (const auto& [plain, message] : kStates) {
    if (message == state) return plain;
  }
  return absl::InvalidArgumentError(absl::StrFormat("state: %d is not one", int{state}));
}

absl::StatusOr<SourceLostAction> FromProto(v1::SourceLostAction action) {
  switch (action) {  // open: a newer client may know more
    case v1::SOURCE_LOST_ACTION_POISON:
      return SourceLostAction::kPoison;
    case v1::SOURCE_LOST_ACTION_KILL:
      return SourceLostAction::kKill;
    default:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("source-lost: action %d is neither poison nor kill", int{action}));
}

v1::Progress ToProto(const Progress& progress) {
  v1::Progress message;
  message.set_vm(progress.vm);
  message.set_session(progress.session);
  message.set_state(ToProto(progress.state));
  message.set_role(RoleWord(progress.role));
  message.set_error(progress.error);
  message.set_note(progress.note);
  message.set_ram_bytes(progress.ram_bytes);
  if (progress.data_bytes) message.set_data_bytes(*progress.data_bytes);
  if (progress.present_bytes) message.set_present_bytes(*progress.present_bytes);
  if (progress.faults) message.set_faults(*progress.faults);
  if (progress.fault_p50_us) message.set_fault_p50_us(*progress.fault_p50_us);
  if (progress.fault_p99_us) message.set_fault_p99_us(*progress.fault_p99_us);
  if (progress.fault_p999_us) message.set_fault_p999_us(*progress.fault_p999_us);
  if (progress.fault_max_us) message.set_fault_max_us(*progress.fault_max_us);
  if (progress.demand_bytes) message.set_demand_bytes(*progress.demand_bytes);
  if (progress.bulk_bytes) message.set_bulk_bytes(*progress.bulk_bytes);
  if (progress.zero_pages) message.set_zero_pages(*progress.zero_pages);
  if (progress.discarded_pages) message.set_discarded_pages(*progress.discarded_pages);
  if (progress.interruptions) message.set_interruptions(*progress.interruptions);
  if (progress.downtime_ms) message.set_downtime_ms(*progress.downtime_ms);
  message.set_elapsed_ms(progress.elapsed_ms);
  if (progress.after_switch_ms) message.set_after_switch_ms(*progress.after_switch_ms);
  if (progress.stopped_at_us) message.set_stopped_at_us(*progress.stopped_at_us);
  if (progress.resumed_at_us) message.set_resumed_at_us(*progress.resumed_at_us);
  if (progress.committed_at_us) message.set_committed_at_us(*progress.committed_at_us);
  message.set_peer(progress.peer);
  return message;
}

absl::StatusOr<Progress> FromProto(const v1::Progress& message) {
  const auto state = FromProto(message.state());
  if (!state.ok()) return state.status();
  if (message.role() != kSource && message.role() != kDestination) {
    return absl::InvalidArgumentError(absl::StrFormat("role: '%s' is none", message.role()));
  }
  for (const double figure : {message.fault_p50_us(), message.fault_p99_us(),
                              message.fault_p999_us(), message.fault_max_us(), message.downtime_ms(),
                              message.elapsed_ms(), message.after_switch_ms()}) {
    if (!std::isfinite(figure)) return absl::InvalidArgumentError("figures: one is not a number");
  }
  Progress progress;
  progress.vm = PrintableText(message.vm());
  progress.session = PrintableText(message.session());
  progress.peer = PrintableText(message.peer());
  progress.role = message.role() == kSource ? SessionRole::kSource : SessionRole::kDestination;
  progress.state = *state;
  progress.error = PrintableText(message.error());
  progress.note = PrintableText(message.note());
  progress.ram_bytes = message.ram_bytes();
  if (message.has_data_bytes()) progress.data_bytes = message.data_bytes();
  if (message.has_present_bytes()) progress.present_bytes = message.present_bytes();
  if (message.has_faults()) progress.faults = message.faults();
  if (message.has_fault_p50_us()) progress.fault_p50_us = message.fault_p50_us();
  if (message.has_fault_p99_us()) progress.fault_p99_us = message.fault_p99_us();
  if (message.has_fault_p999_us()) progress.fault_p999_us = message.fault_p999_us();
  if (message.has_fault_max_us()) progress.fault_max_us = message.fault_max_us();
  if (message.has_demand_bytes()) progress.demand_bytes = message.demand_bytes();
  if (message.has_bulk_bytes()) progress.bulk_bytes = message.bulk_bytes();
  if (message.has_zero_pages()) progress.zero_pages = message.zero_pages();
  if (message.has_discarded_pages()) progress.discarded_pages = message.discarded_pages();
  if (message.has_interruptions()) progress.interruptions = message.interruptions();
  if (message.has_downtime_ms()) progress.downtime_ms = message.downtime_ms();
  progress.elapsed_ms = message.elapsed_ms();
  if (message.has_after_switch_ms()) progress.after_switch_ms = message.after_switch_ms();
  if (message.has_stopped_at_us()) progress.stopped_at_us = message.stopped_at_us();
  if (message.has_resumed_at_us()) progress.resumed_at_us = message.resumed_at_us();
  if (message.has_committed_at_us()) progress.committed_at_us = message.committed_at_us();
  return progress;
}

v1::Vm ToProto(const VmSummary& vm) {
  v1::Vm message;
  message.set_name(vm.name);
  message.set_pid(vm.pid);
  message.set_problem(vm.problem);
  message.set_guest_state(vm.guest_state);
  message.set_ram_bytes(vm.ram_bytes);
  if (vm.in_session) {
    message.set_session(vm.progress.session);
    message.set_state(ToProto(vm.progress.state));
    message.set_role(RoleWord(vm.progress.role));
  }
  return message;
}

v1::Owed ToOwed(const Progress& progress) {
  v1::Owed message;
  message.set_vm(progress.vm);
  message.set_session(progress.session);
  message.set_state(ToProto(progress.state));
  message.set_peer(progress.peer);
  if (progress.data_bytes && progress.present_bytes) {
    message.set_remaining_bytes(*progress.data_bytes -
                                std::min(*progress.data_bytes, *progress.present_bytes));
  }
  return message;
}

v1::OfferRequest ToProto(const Offer& offer) {
  v1::OfferRequest message;
  message.set_session(offer.session);
  message.set_vm(offer.vm);
  message.set_source_vm(offer.source_vm);
  int extents = 0;
  for (const OfferedRegion& offered : offer.ram) {
    v1::RamBlock& block = *message.add_ram();
    block.set_name(offered.region.name);
    block.set_size_bytes(offered.region.size_bytes);
    for (const PageRange& range : offered.data) {
      if (++extents > kMaxOfferedExtents) break;
      block.add_data_extents(range.first.value);
      block.add_data_extents(range.count_pages);
    }
  }
  message.set_machine_type(offer.machine_type);
  message.set_vmm_version(offer.vmm_version);
  message.set_vcpus(offer.vcpus);
  for (const std::string& device : offer.devices) message.add_devices(device);
  for (const MachineProperty& property : offer.print) {
    v1::MachineProperty& added = *message.add_print();
    added.set_name(property.name);
    added.set_value(property.value);
  }
  for (const std::string& address : offer.data_addresses) message.add_data_addresses(address);
  message.set_control_address(offer.control_address);
  return message;
}

absl::StatusOr<Offer> CheckedOfferFromProto(const v1::OfferRequest& message) {
  if (auto status = CheckOfferFields(message); !status.ok()) return status;
  Offer offer;
  MemoryLayout layout;
  for (const v1::RamBlock& block : message.ram()) {
    auto offered = RegionFromProto(block);
    if (!offered.ok()) return offered.status();
    layout.regions.push_back(offered->region);
    offer.ram.push_back(*std::move(offered));
  }
  if (const auto valid = Validate(layout); !valid.ok() && message.ram_size() != 0) {
    return absl::InvalidArgumentError(valid.error().message);
  }
  offer.session = message.session();
  offer.vm = message.vm();
  offer.source_vm = message.source_vm();
  offer.machine_type = message.machine_type();
  offer.vmm_version = message.vmm_version();
  offer.vcpus = message.vcpus();
  offer.devices.assign(message.devices().begin(), message.devices().end());
  for (const v1::MachineProperty& property : message.print()) {
    offer.print.push_back({property.name(), property.value()});
  }
  offer.data_addresses.assign(message.data_addresses().begin(), message.data_addresses().end());
  offer.control_address = message.control_address();
  return offer;
}

const char* RoleWord(SessionRole role) {
  return role == SessionRole::kSource ? kSource : kDestination;
}

std::optional<SessionRole> RoleFromWord(std::string_view word) {
  if (word == kSource) return SessionRole::kSource;
  if (word == kDestination) return SessionRole::kDestination;
  return std::nullopt;
}

absl::StatusOr<Offer> FromProto(const v1::OfferRequest& message) {
  if (message.ram_size() == 0) {
    return absl::InvalidArgumentError(Validate(MemoryLayout{}).error().message);
  }
  return CheckedOfferFromProto(message);
}

std::string_view RecordWord(RecordedOutcome outcome) {
  for (const auto& [plain, word] : kRecords) {
    if (plain == outcome) return word;
  }
  return "unreadable";
}

absl::StatusOr<RecordedOutcome> RecordFromWord(std::string_view word) {
  for (const auto& [plain, known] : kRecords) {
    if (known == word) return plain;
  }
  return absl::InvalidArgumentError(absl::StrFormat("record: '%s' is not one", word));
}

absl::Status CheckSession(const std::string& session) {
  if (SessionId::Parse(session).has_value()) return absl::OkStatus();
  return absl::InvalidArgumentError("session: 32 hexadecimal digits expected");
}

}  // namespace postcopy
