#include "vmm/qemu_ram.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace postcopy {
namespace {

std::string TypeOfObject(const Json& objects, const std::string& id) {
  for (const Json& property : objects) {
    if (StringAt(property, "name") == id) return ChildType(property);
  }
  return "";
}

const MemoryUser* UserOf(const QemuAnswers& answers, const std::string& id) {
  for (const MemoryUser& user : answers.memory_users) {
    if (user.backend == id) return &user;
  }
  return nullptr;
}

bool IsRamDevice(std::string_view type) {
  return type == "pc-dimm" || type.starts_with("virtio-mem");
}

bool IsMachineMemory(const QemuAnswers& answers, const std::string& id) {
  const auto* text = answers.machine_memory.get_ptr<const Json::string_t*>();
  return text != nullptr && !text->empty() && LastOfPath(*text) == id;
}

// A backend gets a name among the RAM blocks when something uses it.
bool IsUsed(const QemuAnswers& answers, const std::string& id) {
  if (answers.ramblock_listing.empty() || IsMachineMemory(answers, id)) return true;
  const std::string in_folder = "/" + id;
  for (absl::string_view line : absl::StrSplit(answers.ramblock_listing, '\n')) {
    const std::vector<std::string> columns =
        absl::StrSplit(line, absl::ByAnyChar(" \r"), absl::SkipEmpty());
    if (columns.empty()) continue;
    if (columns[0] == id || absl::EndsWith(columns[0], in_folder)) return true;
  }
  return false;
}

// Memory that has an owner beside the guest, or outlives it.
void AddForeignMemory(const std::string& id, const std::string& type, const MemoryUser* user,
                      std::vector<std::string>& blockers) {
  const std::string used_by =
      user == nullptr ? "the machine" : absl::StrFormat("device %s (%s)", user->device, user->type);
  blockers.push_back(absl::StrFormat(
      "memory backend %s (%s) is used by %s and is not guest RAM of this VM alone: its content "
      "cannot be moved, and emptying it at the destination would destroy what is in it; unplug "
      "the device at both ends",
      id, type, used_by));
}

}  // namespace

std::string ChildType(const Json& property) {
  const std::string type = StringAt(property, "type");
  absl::string_view inner = type;
  if (!absl::ConsumePrefix(&inner, "child<") || !absl::ConsumeSuffix(&inner, ">")) return "";
  return std::string(inner);
}

std::string LastOfPath(std::string_view path) {
  const size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

std::vector<VmmRamBackend> GuestRamOf(const QemuAnswers& answers,
                                      std::vector<std::string>& blockers) {
  std::vector<VmmRamBackend> ram;
  for (const Json& entry : answers.memory_backends) {
    VmmRamBackend backend;
    backend.id = StringAt(entry, "id");
    backend.type = TypeOfObject(answers.objects, backend.id);
    const MemoryUser* user = UserOf(answers, backend.id);
    // SGX enclave memory is encrypted by the CPU; the machine itself uses it, through no device.
    if ((user != nullptr && !IsRamDevice(user->type)) || backend.type == "memory-backend-epc") {
      AddForeignMemory(backend.id, backend.type, user, blockers);
      continue;
    }
    if (user == nullptr && !IsUsed(answers, backend.id)) continue;
    backend.size_bytes = UnsignedAt(entry, "size");
    backend.shared = BoolAt(entry, "share");
    backend.prealloc = BoolAt(entry, "prealloc");
    const auto path = answers.mem_paths.find(backend.id);
    if (path != answers.mem_paths.end()) {
      if (const auto* text = path->second.get_ptr<const Json::string_t*>()) {
        backend.mem_path = *text;
      }
    }
    ram.push_back(std::move(backend));
  }
  return ram;
}

}  // namespace postcopy
