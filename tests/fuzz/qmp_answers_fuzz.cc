// What a QEMU may say about itself: one JSON value a line, in the order of QemuAnswers; the line
// after them is the text of x-query-ramblock. A line that is no JSON stands for a question that was
// refused.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "vmm/qemu_inspect.h"
#include "vmm/qemu_settings.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

std::string_view TakeLine(std::string_view& text) {
  const size_t end = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return line;
}

Json TakeAnswer(std::string_view& text) {
  Json answer = ParseJson(TakeLine(text));
  return answer.is_discarded() ? Json() : answer;
}

void CheckDescription(const QemuAnswers& answers, const VmmDescription& vm) {
  Require(vm.vcpus >= 0);
  Require(std::is_sorted(vm.devices.begin(), vm.devices.end()));
  Require(vm.state == GuestStateOf(answers.status, answers.migrate));
  Require(vm.state_text == StateText(answers.status, answers.migrate));
  const bool movable = vm.state == GuestState::kRunning || vm.state == GuestState::kPaused ||
                       vm.state == GuestState::kWaitsForIncoming ||
                       vm.state == GuestState::kHeldAtSwitchover;
  Require(movable || !vm.blockers.empty());
  const bool underway = MigrationUnderWay(StringAt(answers.migrate, "status"));
  Require(!underway || !vm.blockers.empty());
}

// More backends that stay out never raise what may travel, and what may travel passes the check.
void CheckLimit(std::string_view listing, const std::vector<VmmRamBackend>& ram,
                const Json& migrate) {
  const auto all = StreamedRamLimit(listing, {});
  const auto limit = StreamedRamLimit(listing, ram);
  if (all.ok()) Require(limit.ok() && *limit <= *all);
  if (!limit.ok()) return;
  Require(*limit >= uint64_t{1} << 20);
  const uint64_t total = UnsignedAt(MemberAt(migrate, "ram"), "total");
  const bool fits = MemberAt(migrate, "ram").is_object() && total <= *limit;
  Require(CheckStreamedRam(migrate, *limit).ok() == fits);
}

bool Lists(const Json& capabilities, std::string_view name) {
  return std::any_of(capabilities.begin(), capabilities.end(), [&](const Json& entry) {
    return StringAt(entry, "capability") == name;
  });
}

// What is set is put back, entry for entry; without what a relocation needs there is no plan.
void CheckPlan(const absl::StatusOr<SettingsPlan>& plan, const Json& capabilities) {
  if (!plan.ok()) return;
  Require(Lists(capabilities, "events") && Lists(capabilities, "x-ignore-shared"));
  Require(plan->apply.capabilities.size() == plan->restore.capabilities.size());
  for (size_t i = 0; i < plan->apply.capabilities.size(); ++i) {
    const Json& applied = plan->apply.capabilities[i];
    const Json& restored = plan->restore.capabilities[i];
    Require(StringAt(applied, "capability") == StringAt(restored, "capability"));
    Require(BoolAt(applied, "state") != BoolAt(restored, "state"));
  }
  Require(plan->apply.parameters.size() == plan->restore.parameters.size());
  for (const auto& [name, value] : plan->apply.parameters.items()) {
    Require(plan->restore.parameters.contains(name) && plan->restore.parameters[name] != value);
  }
}

void Read(std::string_view text) {
  QemuAnswers answers;
  for (Json* answer : {&answers.version, &answers.status, &answers.migrate,
                       &answers.memory_backends, &answers.memory_size, &answers.cpus,
                       &answers.machine_type, &answers.objects, &answers.peripherals,
                       &answers.anonymous_peripherals, &answers.networks}) {
    *answer = TakeAnswer(text);
  }
  const Json capabilities = TakeAnswer(text);
  const Json parameters = TakeAnswer(text);
  const Json path = TakeAnswer(text);
  for (const Json& backend : answers.memory_backends) {
    answers.mem_paths.emplace(StringAt(backend, "id"), path);
  }
  answers.command_line = {"qemu", "-incoming", std::string(TakeLine(text))};

  const VmmDescription vm = DescribeQemu(answers);
  CheckDescription(answers, vm);
  CheckLimit(text, vm.ram, answers.migrate);
  const auto source = PlanSourceSettings(capabilities, parameters);
  CheckPlan(source, capabilities);
  Require(!source.ok() || Lists(capabilities, "pause-before-switchover"));
  const auto destination = PlanDestinationSettings(capabilities, parameters);
  CheckPlan(destination, capabilities);
  Require(!destination.ok() || Lists(capabilities, "late-block-activate"));
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postcopy::Read(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
