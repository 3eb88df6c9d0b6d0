// What QemuDriver changes in the source's QEMU for as long as a relocation needs it, and puts back.
#include <utility>

#include "vmm/qemu_driver.h"

namespace postcopy {

absl::Status QemuDriver::ApplySourceSettings() {
  const absl::Status set = ApplySettings(PlanSourceSettings);
  if (!set.ok()) return set;
  set_here_ = true;
  const absl::Status kept = KeepMemoryAtEnd();
  if (kept.ok()) return kept;
  const absl::Status restored = RestoreSettings();
  if (restored.ok()) return kept;
  return absl::Status(kept.code(), std::string(kept.message()) + "; undoing that: " +
                                       std::string(restored.message()));
}

// A QEMU whose backend has discard-data=on empties the RAM file when it ends, whatever ends it but
// SIGKILL. While memory arrives elsewhere that file is the only copy of what is missing there.
absl::Status QemuDriver::KeepMemoryAtEnd() {
  const absl::StatusOr<Json> backends = Ask("query-memdev");
  if (!backends.ok()) return backends.status();
  for (const Json& backend : *backends) {
    const std::string id = StringAt(backend, "id");
    const absl::StatusOr<Json> emptied = AskEmptiedAtEnd(id);
    if (!emptied.ok()) return emptied.status();
    if (*emptied != Json(true)) continue;
    const absl::Status kept = SetEmptiedAtEnd(id, false);
    if (!kept.ok()) return kept;
    emptied_at_end_.push_back(id);
  }
  return absl::OkStatus();
}

absl::StatusOr<Json> QemuDriver::AskEmptiedAtEnd(const std::string& backend) {
  return AskIfKnown("qom-get", {{"path", "/objects/" + backend}, {"property", "discard-data"}});
}

absl::Status QemuDriver::SetEmptiedAtEnd(const std::string& backend, bool emptied) {
  return Ask("qom-set", {{"path", "/objects/" + backend},
                         {"property", "discard-data"},
                         {"value", emptied}})
      .status();
}

}  // namespace postcopy
