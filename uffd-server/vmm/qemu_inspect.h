// What a QEMU says about itself, from its QMP answers to a VmmDescription.
//
// Pure: the answers come from elsewhere, so that each refusal can be shown with a scripted answer.
// Knows the answers' form of QEMU 7.2 to 10.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "vmm/json_access.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// A device that is given a memory backend.
struct MemoryUser {
  std::string device;   // its id, or where it has none "device[0]"
  std::string type;     // e.g. "ivshmem-plain"
  std::string backend;  // id of the backend
};

// The "return" members; a null value where QEMU refused a question that is not vital.
struct QemuAnswers {
  Json version;          // query-version
  Json status;           // query-status
  Json migrate;          // query-migrate
  Json memory_backends;  // query-memdev
  Json memory_size;      // query-memory-size-summary
  Json cpus;             // query-cpus-fast
  Json machine_type;     // qom-get /machine type
  Json objects;          // qom-list /objects
  Json peripherals;      // qom-list /machine/peripheral
  Json anonymous_peripherals;              // qom-list /machine/peripheral-anon
  Json networks;                           // human-monitor-command "info network"
  std::map<std::string, Json> mem_paths;   // qom-get mem-path, by backend id
  std::vector<std::string> emptied_at_end; // ids of the backends whose discard-data is on
  Json machine_memory;                     // qom-get /machine memory-backend
  std::vector<MemoryUser> memory_users;    // the links of devices to memory backends
  std::string ramblock_listing;            // x-query-ramblock; empty: not known
  Json capabilities;                       // query-migrate-capabilities
  Json jobs;                               // query-jobs
  Json block_exports;                      // query-block-exports
  Json block_nodes;                        // query-named-block-nodes, flat
  Json dump;                               // query-dump
  Json replay;                             // query-replay
  Json colo;                               // query-colo-status
  std::vector<std::string> command_line;   // of the process; empty: not known
  uint64_t locked_bytes = 0;               // VmLck of the process
};

// `pid` is left 0.
VmmDescription DescribeQemu(const QemuAnswers& answers);

// The disks of query-block that can have I/O under way, by the id of the drive or device.
std::vector<std::string> DisksWithMedia(const Json& block);

// The guest's state from query-status and query-migrate.
GuestState GuestStateOf(const Json& status, const Json& migrate);
// "paused", or with a migration "finish-migrate, migration pre-switchover".
std::string StateText(const Json& status, const Json& migrate);

// The status of query-migrate means that a migration is under way, and has not ended.
bool MigrationUnderWay(std::string_view migration_status);

// Bytes of RAM that may travel in the stream: all blocks of x-query-ramblock (firmware, VGA, ACPI
// tables) but the backends of `ram`, which must stay out. kFailedPrecondition: the listing has
// another form.
absl::StatusOr<uint64_t> StreamedRamLimit(std::string_view ramblock_listing,
                                          const std::vector<VmmRamBackend>& ram);

// kFailedPrecondition if QEMU counts more RAM than `limit_bytes` to the stream ("ram" of
// query-migrate): a block that should have stayed out is in. The pages' number is compared and not
// the bytes that were sent: an empty guest's RAM is a few bytes of zero markers, and yet it would
// be written at the destination.
absl::Status CheckStreamedRam(const Json& migrate, uint64_t limit_bytes);

}  // namespace postcopy
