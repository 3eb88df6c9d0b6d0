// Which of a QEMU's memory backends are the guest's RAM.
//
// Pure. query-memdev lists every backend: also one that an ivshmem device shares with other
// processes, one that keeps an nvdimm's content, one that no device uses. Only what the machine
// itself uses as RAM may be emptied, filled or counted as RAM.
#pragma once

#include <string>
#include <vector>

#include "vmm/json_access.h"
#include "vmm/qemu_inspect.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// The machine's memory-backend, those of its NUMA nodes, and those of pc-dimm and virtio-mem
// devices, in the order of query-memdev. A backend that nothing uses is left out. For one that
// another device uses, a sentence is added to `blockers`.
std::vector<VmmRamBackend> GuestRamOf(const QemuAnswers& answers,
                                      std::vector<std::string>& blockers);

// The type in a property of qom-list: "child<vfio-pci>" -> "vfio-pci"; of another kind: empty.
std::string ChildType(const Json& property);
// The name in a path of QOM: "/objects/ram" -> "ram".
std::string LastOfPath(std::string_view path);

}  // namespace postcopy
