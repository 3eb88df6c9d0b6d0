// What QemuDriver asks a QEMU to describe it. What the answers mean: qemu_inspect.h.
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "vmm/machine_print.h"
#include "vmm/qemu_driver.h"
#include "vmm/qemu_inspect.h"
#include "vmm/qemu_ram.h"

namespace postcopy {
namespace {

// The words of a process's command line; empty: not readable, e.g. in another pid namespace.
std::vector<std::string> CommandLineOf(int pid) {
  if (pid <= 0) return {};
  std::ifstream file(absl::StrFormat("/proc/%d/cmdline", pid), std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return absl::StrSplit(text, '\0', absl::SkipEmpty());
}

// VmLck of a process; 0: nothing is locked, or it is not readable.
uint64_t LockedBytesOf(int pid) {
  if (pid <= 0) return 0;
  std::ifstream file(absl::StrFormat("/proc/%d/status", pid));
  std::string word;
  while (file >> word) {
    if (word != "VmLck:") continue;
    uint64_t kib = 0;
    file >> kib;
    return kib * 1024;
  }
  return 0;
}

}  // namespace

absl::StatusOr<VmmDescription> QemuDriver::Describe() {
  const Json anonymous_path = {{"path", "/machine/peripheral-anon"}};
  const Json info_network = {{"command-line", "info network"}};
  const Json machine_memory = {{"path", "/machine"}, {"property", "memory-backend"}};
  const Json machine_type = {{"path", "/machine"}, {"property", "type"}};
  QemuAnswers answers;
  const struct {
    const char* command;
    Json arguments;
    bool vital;
    Json* into;
  } questions[] = {
      {"query-version", Json::object(), true, &answers.version},
      {"query-memdev", Json::object(), true, &answers.memory_backends},
      {"query-memory-size-summary", Json::object(), false, &answers.memory_size},
      {"query-cpus-fast", Json::object(), true, &answers.cpus},
      {"qom-get", machine_type, true, &answers.machine_type},
      {"qom-get", machine_memory, false, &answers.machine_memory},
      {"qom-list", Json{{"path", "/objects"}}, true, &answers.objects},
      {"qom-list", Json{{"path", "/machine/peripheral"}}, true, &answers.peripherals},
      {"qom-list", anonymous_path, true, &answers.anonymous_peripherals},
      {"human-monitor-command", info_network, false, &answers.networks},
      {"query-migrate-capabilities", Json::object(), false, &answers.capabilities},
      {"query-jobs", Json::object(), false, &answers.jobs},
      {"query-block-exports", Json::object(), false, &answers.block_exports},
      {"query-named-block-nodes", Json{{"flat", true}}, false, &answers.block_nodes},
      {"query-dump", Json::object(), false, &answers.dump},
      {"query-replay", Json::object(), false, &answers.replay},
      {"query-colo-status", Json::object(), false, &answers.colo},
      {"query-migrate", Json::object(), true, &answers.migrate},
      {"query-status", Json::object(), true, &answers.status},
  };
  for (const auto& question : questions) {
    absl::StatusOr<Json> answer = question.vital ? Ask(question.command, question.arguments)
                                                 : AskIfKnown(question.command, question.arguments);
    if (!answer.ok()) return answer.status();
    *question.into = *std::move(answer);
  }
  const absl::Status memory = AskForMemory(answers);
  if (!memory.ok()) return memory;
  answers.command_line = CommandLineOf(qmp_->peer_pid());
  answers.locked_bytes = LockedBytesOf(qmp_->peer_pid());
  VmmDescription description = DescribeQemu(answers);
  description.emptied_at_end = answers.emptied_at_end;
  description.pid = qmp_->peer_pid();
  return description;
}

absl::Status QemuDriver::AskForMemory(QemuAnswers& answers) {
  for (const Json& backend : answers.memory_backends) {
    const std::string id = StringAt(backend, "id");
    absl::StatusOr<Json> path =
        AskIfKnown("qom-get", {{"path", "/objects/" + id}, {"property", "mem-path"}});
    if (!path.ok()) return path.status();
    answers.mem_paths.emplace(id, *std::move(path));
    absl::StatusOr<Json> emptied = AskEmptiedAtEnd(id);
    if (!emptied.ok()) return emptied.status();
    if (*emptied == Json(true)) answers.emptied_at_end.push_back(id);
  }
  absl::StatusOr<Json> listing = AskIfKnown("x-query-ramblock");
  if (!listing.ok()) return listing.status();
  answers.ramblock_listing = RawStringAt(*listing, "human-readable-text");
  const absl::Status named = AskForMemoryUsers("/machine/peripheral", answers.peripherals, answers);
  if (!named.ok()) return named;
  return AskForMemoryUsers("/machine/peripheral-anon", answers.anonymous_peripherals, answers);
}

absl::Status QemuDriver::AskForMemoryUsers(const std::string& folder, const Json& devices,
                                           QemuAnswers& answers) {
  for (const Json& device : devices) {
    const std::string type = ChildType(device);
    if (type.empty()) continue;
    const std::string name = StringAt(device, "name");
    const std::string path = folder + "/" + name;
    absl::StatusOr<Json> properties = AskIfKnown("qom-list", {{"path", path}});
    if (!properties.ok()) return properties.status();
    for (const Json& property : *properties) {
      if (StringAt(property, "type") != "link<memory-backend>") continue;
      absl::StatusOr<Json> link =
          AskIfKnown("qom-get", {{"path", path}, {"property", StringAt(property, "name")}});
      if (!link.ok()) return link.status();
      const auto* target = link->get_ptr<const Json::string_t*>();
      if (target == nullptr || target->empty()) continue;
      answers.memory_users.push_back({name, type, LastOfPath(*target)});
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<MachinePrint> QemuDriver::Print() {
  PrintAnswers answers;
  absl::StatusOr<Json> qtree = AskIfKnown("human-monitor-command", {{"command-line", "info qtree"}});
  if (!qtree.ok()) return qtree.status();
  if (const auto* text = qtree->get_ptr<const Json::string_t*>()) answers.qtree = *text;
  absl::StatusOr<Json> listing = AskIfKnown("x-query-ramblock");
  if (!listing.ok()) return listing.status();
  answers.ramblock_listing = RawStringAt(*listing, "human-readable-text");
  const struct {
    const char* command;
    Json* into;
  } questions[] = {
      {"query-kvm", &answers.kvm},
      {"query-cpus-fast", &answers.cpus},
      {"query-memory-devices", &answers.memory_devices},
      {"query-block", &answers.block},
  };
  for (const auto& question : questions) {
    absl::StatusOr<Json> answer = AskIfKnown(question.command);
    if (!answer.ok()) return answer.status();
    *question.into = *std::move(answer);
  }
  if (!fixed_answers_.has_value()) {
    absl::StatusOr<PrintAnswers> fixed = AskForFixedAnswers(answers);
    if (!fixed.ok()) return fixed.status();
    fixed_answers_ = *std::move(fixed);
  }
  answers.machine = fixed_answers_->machine;
  answers.cpu = fixed_answers_->cpu;
  return PrintOf(answers);
}

absl::StatusOr<PrintAnswers> QemuDriver::AskForFixedAnswers(const PrintAnswers& known) {
  PrintAnswers fixed;
  fixed.machine = Json::object();
  fixed.cpu = Json::object();
  absl::StatusOr<Json> properties = AskIfKnown("qom-list", {{"path", "/machine"}});
  if (!properties.ok()) return properties.status();
  for (const Json& property : *properties) {
    const std::string name = StringAt(property, "name");
    if (!IsMachinePrintProperty(name, StringAt(property, "type"))) continue;
    const absl::Status got = AskForProperty("/machine", name, fixed.machine);
    if (!got.ok()) return got;
  }
  if (!known.cpus.is_array() || known.cpus.empty()) return fixed;
  const std::string cpu = StringAt(known.cpus[0], "qom-path");
  for (const char* name : CpuPrintProperties(BoolAt(known.kvm, "enabled"))) {
    const absl::Status got = AskForProperty(cpu, name, fixed.cpu);
    if (!got.ok()) return got;
  }
  const absl::Status type = AskForProperty(cpu, "type", fixed.cpu);
  if (!type.ok()) return type;
  return fixed;
}

absl::Status QemuDriver::AskForProperty(const std::string& path, const std::string& name,
                                        Json& into) {
  absl::StatusOr<Json> value = AskIfKnown("qom-get", {{"path", path}, {"property", name}});
  if (!value.ok()) return value.status();
  if (!value->is_null()) into[name] = *std::move(value);
  return absl::OkStatus();
}

}  // namespace postcopy
