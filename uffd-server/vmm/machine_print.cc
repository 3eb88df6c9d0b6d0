#include "vmm/machine_print.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "vmm/qtree.h"

namespace postcopy {
namespace {

constexpr std::string_view kBlockPrefix = "RAM block ";
constexpr std::string_view kDevicePrefix = "device ";
constexpr std::string_view kDiskPrefix = "disk ";
constexpr std::string_view kWordPrefix = "CPU features ";
constexpr std::string_view kCpuTypeName = "CPU model";
// Sentences about one pair of machines; the rest is counted.
constexpr size_t kMaxSentences = 12;

// Device properties that may differ between two hosts: names of host resources, host policies, and
// what the guest or its firmware sets while it runs.
constexpr auto kFreeDeviceProperties = std::to_array<std::string_view>({
    "netdev", "drive", "chardev", "iothread", "iothread-vq-mapping", "audiodev", "memdev", "tpmdev",
    "rng", "cryptodev", "filename", "logfile", "path", "sock", "display", "head", "pcap",
    "romfile", "romsize", "rombar", "bootindex", "busnr", "ioeventfd", "failover_pair_id",
    "werror", "rerror", "share-rw", "write-cache", "account-invalid", "account-failed",
    "stats-intervals", "discard_granularity", "min_io_size", "opt_io_size", "backend_defaults",
    "lost_tick_policy", "ebpf-rss-fds", "vhostforce", "x-txtimer", "x-txburst", "tx",
    "xres", "yres", "xmax", "ymax", "refresh_rate", "edid", "guest-stats-polling-interval",
    "smb_io_base", "MCFG",
});

// The same of /machine; the type is compared by itself.
constexpr auto kFreeMachineProperties = std::to_array<std::string_view>({
    "type", "kernel", "initrd", "append", "dtb", "dumpdtb", "shim", "dt-compatible", "phandle-start",
    "boot", "rtc-time", "dump-guest-core", "mem-merge", "firmware", "pflash0", "pflash1",
    "suppress-vmdesc", "pcspk-audiodev", "aux-ram-share", "memory-backend", "memory-encryption",
    "confidential-guest-support", "bus-lock-ratelimit", "graphics", "igvm-cfg",
});

// Bits that follow from the number of vCPUs and not from the model: HTT and CmpLegacy.
struct TopologyBit {
  std::string_view word;
  uint64_t bit;
};
constexpr std::array<TopologyBit, 2> kTopologyBits = {{
    {"CPU features CPUID 0x1 EDX", uint64_t{1} << 28},
    {"CPU features CPUID 0x80000001 ECX", uint64_t{1} << 1},
}};

template <typename List>
bool Has(const List& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

using Values = std::map<std::string, std::string>;

std::string Cut(std::string text) {
  if (text.size() > kMaxPrintTextBytes) text.resize(kMaxPrintTextBytes);
  for (char& c : text) {
    // Names of QEMU are ASCII; anything else may be half a character after the cut.
    if (c < ' ' || c > '~') c = '?';
  }
  return text;
}

std::string TextOf(const Json& value) {
  if (const auto* text = value.get_ptr<const Json::string_t*>()) return *text;
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void AddDevices(std::string_view qtree, Values& values) {
  for (const QtreeDevice& device : ParseQtree(qtree)) {
    const std::string prefix = absl::StrCat(std::string(kDevicePrefix), device.key, ": ");
    values[prefix + "type"] = device.type;
    values[prefix + "bus"] = device.bus;
    for (const auto& [name, value] : device.properties) {
      if (Has(kFreeDeviceProperties, name) || name.starts_with("x-")) continue;
      values[prefix + name] = value;
    }
  }
}

// But ROMs of fw_cfg: they may grow, and their content travels.
void AddRamBlocks(const std::string& listing, Values& values) {
  for (absl::string_view line : absl::StrSplit(listing, '\n')) {
    const std::vector<std::string> columns =
        absl::StrSplit(line, absl::ByAnyChar(" \r"), absl::SkipEmpty());
    uint64_t used = 0;
    if (columns.size() < 6 || absl::StartsWith(columns[0], "/rom@") ||
        !absl::SimpleHexAtoi(columns[4], &used)) {
      continue;
    }
    values[absl::StrCat(std::string(kBlockPrefix), columns[0])] = absl::StrCat(used, " bytes");
  }
}

void AddMachine(const Json& machine, Values& values) {
  if (!machine.is_object()) return;
  for (const auto& [name, value] : machine.items()) {
    if (!value.is_object()) {
      values["machine " + name] = TextOf(value);
      continue;
    }
    for (const auto& [part, inner] : value.items()) {
      values["machine " + name + "." + part] = TextOf(inner);
    }
  }
}

void AddCpu(const Json& cpu, Values& values) {
  if (!cpu.is_object()) return;
  for (const auto& [name, value] : cpu.items()) {
    if (name == "type") {
      values[std::string(kCpuTypeName)] = TextOf(value);
    } else if (name == "feature-words") {
      for (const Json& word : value) {
        const Json& ecx = MemberAt(word, "cpuid-input-ecx");
        const std::string leaf = absl::StrFormat(
            "%sCPUID %#x%s %s", kWordPrefix, UnsignedAt(word, "cpuid-input-eax"),
            ecx.is_null() ? "" : "/" + TextOf(ecx), StringAt(word, "cpuid-register"));
        values[leaf] = absl::StrFormat("%#x", UnsignedAt(word, "features"));
      }
    } else {
      values["CPU " + name] = TextOf(value);
    }
  }
}

void AddCpuPlaces(const Json& cpus, Values& values) {
  std::set<std::string> places;
  for (const Json& cpu : cpus) {
    std::vector<std::string> ids;
    for (const char* id : {"node-id", "socket-id", "die-id", "core-id", "thread-id"}) {
      const Json& place = MemberAt(MemberAt(cpu, "props"), id);
      if (place.is_number()) ids.push_back(absl::StrCat(id, " ", TextOf(place)));
    }
    places.insert(absl::StrJoin(ids, " "));
  }
  for (const std::string& place : places) values["vCPU " + place] = "present";
}

void AddMemoryDevices(const Json& devices, Values& values) {
  for (const Json& device : devices) {
    const Json& data = MemberAt(device, "data");
    const std::string prefix = absl::StrCat("memory device ", StringAt(data, "id"), ": ");
    values[prefix + "type"] = StringAt(device, "type");
    for (const char* name : {"addr", "memaddr", "slot", "node", "block-size", "max-size"}) {
      const Json& value = MemberAt(data, name);
      if (value.is_number()) values[prefix + name] = TextOf(value);
    }
  }
}

// How large the guest sees its disks: of images that have changed places, or of another machine, this
// is what QEMU tells. Of devices that have a name of their own: drives may be named as a host likes.
void AddDisks(const Json& block, Values& values) {
  constexpr std::string_view kNamed = "/machine/peripheral/";
  for (const Json& drive : block) {
    const Json& size = MemberAt(MemberAt(MemberAt(drive, "inserted"), "image"), "virtual-size");
    if (!size.is_number()) continue;
    std::string name = StringAt(drive, "qdev");
    if (name.starts_with(kNamed)) {
      name = name.substr(kNamed.size(), name.find('/', kNamed.size()) - kNamed.size());
    }
    if (name.empty() || name.starts_with("/")) continue;
    values[absl::StrCat(std::string(kDiskPrefix), name, ": size")] = TextOf(size) + " bytes";
  }
}

const MachineProperty* Find(const MachinePrint& print, const std::string& name) {
  const auto found =
      std::lower_bound(print.begin(), print.end(), name,
                       [](const MachineProperty& a, const std::string& b) { return a.name < b; });
  return found != print.end() && found->name == name ? &*found : nullptr;
}

uint64_t WordOf(const MachineProperty& property) {
  uint64_t word = 0;
  if (!absl::SimpleHexAtoi(property.value, &word)) return 0;
  for (const TopologyBit& each : kTopologyBits) {
    if (property.name == each.word) word &= ~each.bit;
  }
  return word;
}

bool Differ(const MachineProperty& source, const MachineProperty& destination, bool one_release) {
  if (source.name == kCpuTypeName) return false;  // only named, beside a feature that differs
  if (!source.name.starts_with(kWordPrefix)) return source.value != destination.value;
  const uint64_t here = WordOf(source);
  const uint64_t there = WordOf(destination);
  return one_release ? here != there : (here & ~there) != 0;
}

std::string BothValues(const MachineProperty& source, const MachineProperty& destination) {
  const auto shown = [](const std::string& value) { return value.empty() ? "(empty)" : value; };
  return absl::StrFormat("%s is %s at the source and %s at the destination", source.name,
                         shown(source.value), shown(destination.value));
}

// Which of two prints has a vCPU or RAM block that the other lacks.
void AddOnlyIn(const MachinePrint& print, const MachinePrint& other, std::string_view prefix,
               const char* where, std::vector<std::string>& sentences) {
  if (!std::any_of(other.begin(), other.end(), [&](const MachineProperty& property) {
        return property.name.starts_with(prefix);
      })) {
    return;  // the other side does not report such
  }
  for (const MachineProperty& property : print) {
    if (!property.name.starts_with(prefix) || Find(other, property.name) != nullptr) continue;
    sentences.push_back(
        absl::StrFormat("%s (%s) is at the %s only", property.name, property.value, where));
  }
}

std::vector<std::string> Bounded(std::vector<std::string> sentences) {
  if (sentences.size() <= kMaxSentences) return sentences;
  const size_t rest = sentences.size() - kMaxSentences;
  sentences.resize(kMaxSentences);
  sentences.push_back(absl::StrFormat("and %d more differences", rest));
  return sentences;
}

}  // namespace

bool IsMachinePrintProperty(std::string_view name, std::string_view type) {
  return !type.starts_with("child<") && !type.starts_with("link<") && !name.starts_with("x-") &&
         !Has(kFreeMachineProperties, name);
}

std::vector<const char*> CpuPrintProperties(bool kvm) {
  std::vector<const char*> names = {"feature-words", "family", "model", "stepping",
                                    "vendor", "model-id", "phys-bits"};
  if (!kvm) return names;
  for (const char* name :
       {"hv-relaxed", "hv-vapic", "hv-time", "hv-crash", "hv-reset", "hv-vpindex", "hv-runtime",
        "hv-synic", "hv-stimer", "hv-stimer-direct", "hv-frequencies", "hv-reenlightenment",
        "hv-tlbflush", "hv-ipi", "hv-evmcs", "hv-spinlocks"}) {
    names.push_back(name);
  }
  return names;
}

MachinePrint PrintOf(const PrintAnswers& answers) {
  Values values;
  AddMachine(answers.machine, values);
  AddCpu(answers.cpu, values);
  AddCpuPlaces(answers.cpus, values);
  AddMemoryDevices(answers.memory_devices, values);
  AddRamBlocks(answers.ramblock_listing, values);
  AddDevices(answers.qtree, values);
  AddDisks(answers.block, values);
  if (answers.kvm.is_object()) {
    values["accelerator"] = BoolAt(answers.kvm, "enabled") ? "KVM" : "TCG";
  }
  Values cut;  // sorted by the names as they are kept
  for (const auto& [name, value] : values) {
    if (cut.size() == kMaxPrintProperties) break;
    cut.emplace(Cut(name), Cut(value));
  }
  MachinePrint print;
  for (const auto& [name, value] : cut) print.push_back({name, value});
  return print;
}

MachinePrint WithoutRamBlocks(MachinePrint print, const std::set<std::string>& names) {
  std::erase_if(print, [&](const MachineProperty& property) {
    return property.name.starts_with(kBlockPrefix) &&
           names.count(property.name.substr(kBlockPrefix.size())) > 0;
  });
  return print;
}

std::vector<std::string> PrintDifferences(const MachinePrint& source,
                                          std::string_view source_version,
                                          const MachinePrint& destination,
                                          std::string_view destination_version) {
  const bool one_release = source_version == destination_version;
  std::vector<std::string> sentences;
  bool features = false;
  for (const MachineProperty& property : source) {
    const MachineProperty* twin = Find(destination, property.name);
    if (twin == nullptr || !Differ(property, *twin, one_release)) continue;
    features = features || property.name.starts_with(kWordPrefix);
    sentences.push_back(BothValues(property, *twin));
  }
  const MachineProperty* here = Find(source, std::string(kCpuTypeName));
  const MachineProperty* there = Find(destination, std::string(kCpuTypeName));
  if (features && here != nullptr && there != nullptr) {
    sentences.insert(sentences.begin(), BothValues(*here, *there));
  }
  AddOnlyIn(source, destination, kBlockPrefix, "source", sentences);
  AddOnlyIn(source, destination, "vCPU ", "source", sentences);
  AddOnlyIn(destination, source, "vCPU ", "destination", sentences);
  if (one_release) AddOnlyIn(destination, source, kBlockPrefix, "destination", sentences);
  return Bounded(std::move(sentences));
}

std::vector<std::string> PrintChanges(const MachinePrint& before, const MachinePrint& now) {
  std::vector<std::string> sentences;
  const auto matters = [](const MachineProperty& property) {
    return property.name.starts_with(kDevicePrefix) || property.name.starts_with(kBlockPrefix) ||
           property.name.starts_with(kDiskPrefix) || property.name.starts_with("vCPU ") ||
           property.name.starts_with("memory device ");
  };
  for (const MachineProperty& property : now) {
    const MachineProperty* old = Find(before, property.name);
    if (!matters(property) || (old != nullptr && *old == property)) continue;
    // A medium that has been put in, or taken out below.
    if (old == nullptr && property.name.starts_with(kDiskPrefix)) continue;
    // Of a device that has come one property is enough.
    if (old == nullptr && property.name.starts_with(kDevicePrefix) &&
        !absl::EndsWith(property.name, ": type")) {
      continue;
    }
    sentences.push_back(old == nullptr
                            ? absl::StrFormat("%s (%s) has been added", property.name, property.value)
                            : absl::StrFormat("%s was %s and is %s", property.name, old->value,
                                              property.value));
  }
  for (const MachineProperty& property : before) {
    if (!matters(property) || Find(now, property.name) != nullptr ||
        property.name.starts_with(kDiskPrefix)) {
      continue;
    }
    if (property.name.starts_with(kDevicePrefix) && !absl::EndsWith(property.name, ": type")) {
      continue;
    }
    sentences.push_back(
        absl::StrFormat("%s (%s) has been removed", property.name, property.value));
  }
  return Bounded(std::move(sentences));
}

}  // namespace postcopy
