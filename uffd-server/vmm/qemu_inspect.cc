#include "vmm/qemu_inspect.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "vmm/qemu_ram.h"
#include "vmm/refusals.h"

namespace postcopy {
namespace {

// RAM blocks may grow a little while QEMU runs (ACPI tables are resizeable).
constexpr uint64_t kStreamedRamSlackBytes = uint64_t{1} << 20;

void AddDevices(const Json& properties, VmmDescription& description) {
  for (const Json& property : properties) {
    const std::string type = ChildType(property);
    if (type.empty()) continue;
    description.devices.push_back(StringAt(property, "name") + ":" + type);
  }
}

void AddMigrationBlockers(const Json& migrate, std::vector<std::string>& blockers) {
  const std::string status = StringAt(migrate, "status");
  if (MigrationUnderWay(status)) {
    blockers.push_back(
        absl::StrFormat("a migration of this machine is under way already (%s)", status));
  }
  for (const Json& reason : MemberAt(migrate, "blocked-reasons")) {
    if (const auto* text = reason.get_ptr<const Json::string_t*>()) {
      blockers.push_back("QEMU refuses to migrate: " + *text);
    }
  }
}

void AddStateBlockers(const QemuAnswers& answers, const VmmDescription& description,
                      std::vector<std::string>& blockers) {
  if (description.state == GuestState::kOther) {
    blockers.push_back(absl::StrFormat("the machine is in state %s: only a running or a paused "
                                       "one can be moved", description.state_text));
  } else if (description.state == GuestState::kSent) {
    blockers.push_back(
        "the machine is stopped after a migration that has completed: where another host has taken "
        "it over it must not run here; where a relocation was rolled back while it was paused, QEMU "
        "moves it only after it has run again: cont and stop it first");
  } else if (description.state == GuestState::kPaused &&
             StringAt(answers.status, "status") == "postmigrate") {
    blockers.push_back(
        "the machine is paused after an earlier migration, and QEMU moves it only after it has "
        "run again: cont and stop it first");
  }
}

// Another process's command line is a hint only: the driver also tells an incoming QEMU not to
// start by itself. But who leaves -S out did not mean to run under the project's rules.
void AddCommandLineBlockers(const QemuAnswers& answers, GuestState state,
                            std::vector<std::string>& blockers) {
  const auto has = [&](std::string_view option) {
    for (std::string_view word : answers.command_line) {
      if (word.starts_with("--")) word.remove_prefix(1);
      if (word == option) return true;
    }
    return false;
  };
  if (state == GuestState::kWaitsForIncoming && has("-incoming") && !has("-S")) {
    blockers.push_back(
        "QEMU was started with -incoming but without -S: it would run by itself at the end of "
        "the load");
  }
}

// Since 8.1 QEMU keeps only RAM in a *named* file out of its stream.
void AddMemoryBlockers(const QemuAnswers& answers, const VmmDescription& description,
                       std::vector<std::string>& blockers) {
  const Json& numbers = MemberAt(answers.version, "qemu");
  const auto version = std::pair(UnsignedAt(numbers, "major"), UnsignedAt(numbers, "minor"));
  if (version < std::pair<uint64_t, uint64_t>(8, 1)) return;
  for (const VmmRamBackend& backend : description.ram) {
    if (!backend.shared || !backend.mem_path.empty()) continue;
    blockers.push_back(absl::StrFormat(
        "RAM block %s is a %s, whose content QEMU %s sends with the device state (QEMU up to 8.0 does "
        "not); use memory-backend-file with mem-path on tmpfs and share=on",
        backend.id, backend.type, description.version));
  }
}

std::string VersionOf(const Json& version) {
  const Json& numbers = MemberAt(version, "qemu");
  return absl::StrFormat("%d.%d.%d", UnsignedAt(numbers, "major"), UnsignedAt(numbers, "minor"),
                         UnsignedAt(numbers, "micro"));
}

std::string MachineTypeOf(const Json& type) {
  const auto* text = type.get_ptr<const Json::string_t*>();
  return text == nullptr ? "" : std::string(absl::StripSuffix(*text, "-machine"));
}

}  // namespace

std::vector<std::string> DisksWithMedia(const Json& block) {
  std::vector<std::string> disks;
  for (const Json& drive : block) {
    if (!MemberAt(drive, "inserted").is_object()) continue;
    const std::string id = StringAt(drive, "device");
    disks.push_back(id.empty() ? StringAt(drive, "qdev") : id);
  }
  return disks;
}

bool MigrationUnderWay(std::string_view migration_status) {
  return !(migration_status.empty() || migration_status == "none" ||
           migration_status == "completed" || migration_status == "cancelled" ||
           migration_status == "failed");
}

GuestState GuestStateOf(const Json& status, const Json& migrate) {
  const std::string run = StringAt(status, "status");
  const std::string migration = StringAt(migrate, "status");
  if (run == "running") return GuestState::kRunning;
  if (run == "paused" || run == "prelaunch") return GuestState::kPaused;
  if (run == "inmigrate") {
    return migration.empty() || migration == "none" ? GuestState::kWaitsForIncoming
                                                    : GuestState::kOther;
  }
  if (run == "finish-migrate" && migration == "pre-switchover") {
    return GuestState::kHeldAtSwitchover;
  }
  // QEMU up to 8 also leaves a machine that was paused before in "postmigrate" when its migration
  // was cancelled or failed: nothing has left then.
  if (run == "postmigrate") {
    return migration == "completed" ? GuestState::kSent : GuestState::kPaused;
  }
  return GuestState::kOther;
}

std::string StateText(const Json& status, const Json& migrate) {
  const std::string run = StringAt(status, "status");
  const std::string migration = StringAt(migrate, "status");
  // One that has come here stays "completed" for ever.
  const bool over = run == "running" && migration == "completed";
  return migration.empty() || migration == "none" || over ? run : run + ", migration " + migration;
}

VmmDescription DescribeQemu(const QemuAnswers& answers) {
  VmmDescription description;
  description.version = VersionOf(answers.version);
  description.machine_type = MachineTypeOf(answers.machine_type);
  description.vcpus = static_cast<int>(answers.cpus.is_array() ? answers.cpus.size() : 0);
  description.ram = GuestRamOf(answers, description.blockers);
  description.ram_bytes = UnsignedAt(answers.memory_size, "base-memory") +
                          UnsignedAt(answers.memory_size, "plugged-memory");
  description.state = GuestStateOf(answers.status, answers.migrate);
  description.state_text = StateText(answers.status, answers.migrate);

  AddMemoryBlockers(answers, description, description.blockers);
  AddStateBlockers(answers, description, description.blockers);
  AddMigrationBlockers(answers.migrate, description.blockers);
  AddCommandLineBlockers(answers, description.state, description.blockers);
  AddDevices(answers.peripherals, description);
  AddDevices(answers.anonymous_peripherals, description);
  AddRefusals(answers, description.state == GuestState::kWaitsForIncoming, description.blockers);
  std::sort(description.devices.begin(), description.devices.end());
  return description;
}

absl::StatusOr<uint64_t> StreamedRamLimit(std::string_view ramblock_listing,
                                          const std::vector<VmmRamBackend>& ram) {
  // Name, page size (number and unit), offset, used, total; newer versions add columns.
  constexpr size_t kUsedColumn = 4;
  uint64_t total = kStreamedRamSlackBytes;
  size_t blocks = 0;
  for (absl::string_view line :
       absl::StrSplit(absl::string_view(ramblock_listing.data(), ramblock_listing.size()), '\n')) {
    const std::vector<std::string> columns =
        absl::StrSplit(line, absl::ByAnyChar(" \r"), absl::SkipEmpty());
    if (columns.size() <= kUsedColumn || columns[0] == "Block") continue;
    uint64_t used = 0;
    if (!absl::SimpleHexAtoi(columns[kUsedColumn], &used)) {
      return absl::FailedPreconditionError("x-query-ramblock: unknown form of " +
                                           std::string(line));
    }
    ++blocks;
    const bool stays_out = std::any_of(ram.begin(), ram.end(), [&](const VmmRamBackend& backend) {
      return columns[0] == backend.id || absl::EndsWith(columns[0], "/" + backend.id);
    });
    if (stays_out) continue;
    if (used > UINT64_MAX - total) {
      return absl::FailedPreconditionError("x-query-ramblock: the blocks add up to more than 2^64");
    }
    total += used;
  }
  if (blocks == 0) return absl::FailedPreconditionError("x-query-ramblock: no block is listed");
  return total;
}

absl::Status CheckStreamedRam(const Json& migrate, uint64_t limit_bytes) {
  const Json& ram = MemberAt(migrate, "ram");
  if (!ram.is_object()) {
    return absl::FailedPreconditionError("QEMU does not say how much RAM is in its stream");
  }
  const uint64_t total = UnsignedAt(ram, "total");
  if (total <= limit_bytes) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "QEMU put guest RAM into the stream that should have stayed out: %d bytes, expected at most "
      "%d; is all of the RAM in named files with share=on?",
      total, limit_bytes));
}

}  // namespace postcopy
