// What a guest can see of its machine, as a sorted list of named values, and how two differ.
//
// Pure. QEMU's migration stream carries the state of devices and hardly anything of how they were
// configured, so it accepts a machine whose disks have changed places or whose CPU lacks a feature.
// The print is made of what QEMU reports without knowing any device: `info qtree` (every property of
// every device on a bus), the properties of /machine, the first CPU, RAM blocks, memory devices, sizes of disks.
// What may differ between two hosts is a list in machine_print.cc.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "vmm/json_access.h"

namespace postcopy {

struct MachineProperty {
  std::string name;   // e.g. "device disk0: addr"
  std::string value;  // e.g. "04.0"

  friend bool operator==(const MachineProperty&, const MachineProperty&) = default;
};

// Sorted by name; each name once.
using MachinePrint = std::vector<MachineProperty>;

// Longer names and values are cut, further properties left out: what two prints do not share is not
// compared.
inline constexpr size_t kMaxPrintProperties = 8'192;
inline constexpr size_t kMaxPrintTextBytes = 256;

// Null or empty where QEMU does not answer.
struct PrintAnswers {
  std::string qtree;            // info qtree
  std::string ramblock_listing; // x-query-ramblock
  Json machine;                 // object: qom-get of each property of /machine
  Json cpu;                     // object: qom-get of properties of the first CPU, and its "type"
  Json cpus;                    // query-cpus-fast
  Json memory_devices;          // query-memory-devices
  Json kvm;                     // query-kvm
  Json block;                   // query-block
};

MachinePrint PrintOf(const PrintAnswers& answers);

// Whether a property of /machine, by name and type of qom-list, is part of a print.
bool IsMachinePrintProperty(std::string_view name, std::string_view type);
// The properties of a CPU that are; under KVM the enlightenments for Windows, too.
std::vector<const char*> CpuPrintProperties(bool kvm);

// `print` without those RAM blocks.
MachinePrint WithoutRamBlocks(MachinePrint print, const std::set<std::string>& names);

// A sentence for each difference, with both values. Only what both sides report is compared, but
// for RAM blocks. Where the releases differ, the destination's CPU may have more features than the
// source's: what a model implies grows.
std::vector<std::string> PrintDifferences(const MachinePrint& source,
                                          std::string_view source_version,
                                          const MachinePrint& destination,
                                          std::string_view destination_version);

// A sentence for each property of a device or RAM block that has come, gone or changed on one host.
std::vector<std::string> PrintChanges(const MachinePrint& before, const MachinePrint& now);

}  // namespace postcopy
