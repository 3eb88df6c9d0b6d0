// Which of QEMU's migration settings a relocation changes, and how to put them back.
//
// Pure: from the answers of query-migrate-capabilities and query-migrate-parameters to the
// arguments of the commands that set them. Only what differs is changed, and only capabilities that
// this QEMU lists are named, so that the same plan fits every version.
#pragma once

#include "absl/status/statusor.h"
#include "vmm/json_access.h"

namespace postcopy {

struct MigrationSettings {
  Json capabilities = Json::array();  // of migrate-set-capabilities; empty: nothing to set
  Json parameters = Json::object();   // of migrate-set-parameters; empty: nothing to set
};

struct SettingsPlan {
  MigrationSettings apply;
  MigrationSettings restore;
};

// The source: stops at pre-switchover, leaves shared RAM out, converges at once. A capability that says
// what is to be moved (dirty-bitmaps) stays as its owner has set it; those that say how are switched off.
// kUnimplemented names a capability that this QEMU lacks.
absl::StatusOr<SettingsPlan> PlanSourceSettings(const Json& capabilities, const Json& parameters);

// What must be off where a machine was loaded: with the first the VMM saves it without its memory, with
// the second its disks stay inactive after a load. Of `capabilities`, those that are on.
Json LoadCapabilitiesOn(const Json& capabilities);

// The destination: leaves shared RAM out and takes no disk lock before it runs.
absl::StatusOr<SettingsPlan> PlanDestinationSettings(const Json& capabilities,
                                                     const Json& parameters);

// A machine that stays where it is: what a relocation sets is off again, for one of which it is not
// known what was set before. Parameters that have a relocation's value get QEMU's default.
absl::StatusOr<SettingsPlan> PlanNoRelocation(const Json& capabilities, const Json& parameters);

}  // namespace postcopy
