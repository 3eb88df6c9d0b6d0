#include "vmm/refusals.h"

#include <algorithm>
#include <cctype>

#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "vmm/qemu_ram.h"

namespace postcopy {
namespace {

constexpr uint64_t kBytesInMib = uint64_t{1} << 20;

void FindJobs(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  for (const Json& job : answers.jobs) {
    const std::string status = StringAt(job, "status");
    // One that has ended does nothing more; it only waits for job-dismiss.
    if (status.empty() || status == "concluded" || status == "null") continue;
    subjects.push_back(absl::StrFormat("job %s (%s, %s)", StringAt(job, "id"),
                                       StringAt(job, "type"), status));
  }
}

void FindExports(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  for (const Json& each : answers.block_exports) {
    subjects.push_back(absl::StrFormat("block export %s (%s, node %s)", StringAt(each, "id"),
                                       StringAt(each, "type"), StringAt(each, "node-name")));
  }
}

void FindBitmaps(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  for (const Json& capability : answers.capabilities) {
    if (StringAt(capability, "capability") == "dirty-bitmaps" && BoolAt(capability, "state")) {
      return;
    }
  }
  for (const Json& node : answers.block_nodes) {
    for (const Json& bitmap : MemberAt(node, "dirty-bitmaps")) {
      const std::string name = StringAt(bitmap, "name");
      if (name.empty() || BoolAt(bitmap, "persistent")) continue;  // no name: a job's own
      subjects.push_back(
          absl::StrFormat("dirty bitmap %s of node %s", name, StringAt(node, "node-name")));
    }
  }
}

// QEMU names the overlay of -snapshot or snapshot=on "vl." and six random letters or digits.
bool IsTemporaryOverlay(std::string_view file) {
  const std::string name = LastOfPath(file);
  return name.size() == 9 && name.starts_with("vl.") &&
         std::all_of(name.begin() + 3, name.end(),
                     [](unsigned char c) { return std::isalnum(c) != 0; });
}

void FindTemporaryOverlays(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  for (const Json& node : answers.block_nodes) {
    const std::string file = StringAt(node, "file");
    if (StringAt(node, "drv") != "file" || !IsTemporaryOverlay(file)) continue;
    subjects.push_back("temporary overlay " + file);
  }
}

void FindDump(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  if (StringAt(answers.dump, "status") == "active") subjects.push_back("dump-guest-memory");
}

void FindReplay(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  const std::string mode = StringAt(answers.replay, "mode");
  if (!mode.empty() && mode != "none") subjects.push_back("-icount rr=" + mode);
}

void FindColo(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  const std::string mode = StringAt(answers.colo, "mode");
  if (!mode.empty() && mode != "none") subjects.push_back("COLO, " + mode);
}

void FindLockedMemory(const QemuAnswers& answers, std::vector<std::string>& subjects) {
  const uint64_t ram_bytes = UnsignedAt(answers.memory_size, "base-memory");
  if (ram_bytes == 0 || answers.locked_bytes < ram_bytes) return;
  subjects.push_back(absl::StrFormat("QEMU's memory is locked (%d MiB, VmLck)",
                                     answers.locked_bytes / kBytesInMib));
}

struct TypedThing {
  const char* kind;
  std::string name;
  std::string type;
};

void AddChildren(const char* kind, const Json& properties, std::vector<TypedThing>& things) {
  for (const Json& property : properties) {
    const std::string type = ChildType(property);
    if (!type.empty()) things.push_back({kind, StringAt(property, "name"), type});
  }
}

// Lines such as " \ n0: index=0,type=vhost-user,vhost-user0 to c0".
void AddNetworks(const Json& networks, std::vector<TypedThing>& things) {
  const auto* text = networks.get_ptr<const Json::string_t*>();
  if (text == nullptr) return;
  for (absl::string_view line : absl::StrSplit(*text, '\n')) {
    const size_t type_at = line.find("type=");
    const size_t name_end = line.find(": ");
    if (type_at == absl::string_view::npos || name_end == absl::string_view::npos) continue;
    const absl::string_view type_on = line.substr(type_at + 5);
    const absl::string_view type = type_on.substr(0, type_on.find_first_of(",\r "));
    const size_t name_at = line.find_first_not_of(" \\");
    if (name_at == absl::string_view::npos || name_at > name_end) continue;
    things.push_back({"netdev", std::string(line.substr(name_at, name_end - name_at)),
                      std::string(type)});
  }
}

std::vector<TypedThing> TypedThings(const QemuAnswers& answers) {
  std::vector<TypedThing> things;
  AddChildren("device", answers.peripherals, things);
  AddChildren("device", answers.anonymous_peripherals, things);
  AddNetworks(answers.networks, things);
  AddChildren("object", answers.objects, things);
  return things;
}

bool IsAbout(const Refusal& row, std::string_view type) {
  for (absl::string_view part : absl::StrSplit(row.type_parts, ' ', absl::SkipEmpty())) {
    if (type.find(std::string_view(part.data(), part.size())) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

const std::vector<Refusal>& Refusals() {
  using enum RefusedAt;
  static const std::vector<Refusal> rows = {
      {kBoth, "a vhost-user device or network backend, virtiofs, x-remote",
       "its back end maps guest RAM in another process",
       "unplug it, or use a device that QEMU emulates itself", "vhost-user virtiofs x-remote",
       nullptr},
      {kBoth, "vfio, vhost-vdpa, pvrdma", "its hardware reaches guest RAM by DMA",
       "unplug it at both ends for the relocation", "vfio vhost-vdpa pvrdma", nullptr},
      {kBoth, "sev-guest, sev-snp-guest, tdx-guest, s390-pv-guest, pef-guest",
       "the CPU encrypts guest RAM with a key of this host",
       "such a VM cannot be relocated; shut it down and start it at the destination",
       "sev-guest sev-snp-guest tdx-guest s390-pv-guest pef-guest", nullptr},
      {kBoth, "COLO (colo-compare, query-colo-status)",
       "a second QEMU runs this VM in step with it", "end COLO first", "colo-compare", FindColo},
      {kBoth, "a job that has not concluded (query-jobs): mirror, backup, commit, stream, snapshot",
       "it ends with this QEMU, and what it had not copied stays uncopied",
       "wait for it, complete it (block-job-complete) or cancel it (block-job-cancel)", "",
       FindJobs},
      {kBoth, "a block export (query-block-exports), writable or read-only",
       "its clients would lose it", "end the export (block-export-del, nbd-server-stop)", "",
       FindExports},
      {kSource, "a dirty bitmap that is not persistent (query-named-block-nodes)",
       "QEMU would drop it without a word, and the next incremental backup would need a full one",
       "set the migration capability dirty-bitmaps on at both QEMUs, or remove the bitmap "
       "(block-dirty-bitmap-remove)",
       "", FindBitmaps},
      {kSource, "a temporary overlay (-snapshot, snapshot=on)",
       "what the guest has written is in a deleted file of this host",
       "commit it (HMP commit) or start the VM without -snapshot", "", FindTemporaryOverlays},
      {kBoth, "a dump of guest memory (query-dump)", "it reads guest RAM and blocks migration",
       "wait for its end", "", FindDump},
      {kBoth, "record or replay (query-replay)", "the record of this run is bound to this QEMU",
       "start the VM without -icount rr", "", FindReplay},
      {kDestination, "locked memory (VmLck of /proc/PID/status)",
       "its pages cannot be dropped, so they would never be requested from the source",
       "start QEMU without -overcommit mem-lock=on (libvirt: without <locked/>)", "",
       FindLockedMemory},
  };
  return rows;
}

std::string_view EndName(RefusedAt at) {
  switch (at) {
    case RefusedAt::kBoth: return "both";
    case RefusedAt::kSource: return "source";
    case RefusedAt::kDestination: break;
  }
  return "destination";
}

void AddRefusals(const QemuAnswers& answers, bool waits, std::vector<std::string>& blockers) {
  const std::vector<TypedThing> things = TypedThings(answers);
  for (const Refusal& row : Refusals()) {
    if (row.at == (waits ? RefusedAt::kSource : RefusedAt::kDestination)) continue;
    std::vector<std::string> subjects;
    for (const TypedThing& thing : things) {
      if (!IsAbout(row, thing.type)) continue;
      subjects.push_back(absl::StrFormat("%s %s is %s", thing.kind, thing.name, thing.type));
    }
    if (row.find != nullptr) row.find(answers, subjects);
    for (const std::string& subject : subjects) {
      blockers.push_back(absl::StrFormat("%s: %s; %s", subject, row.why, row.instead));
    }
  }
}

}  // namespace postcopy
