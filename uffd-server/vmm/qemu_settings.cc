#include "vmm/qemu_settings.h"

#include <array>
#include <span>
#include <string_view>

#include "absl/strings/str_format.h"

namespace postcopy {
namespace {

// Bytes per second; a device state of 0.3 MB must never wait for a rate limit.
constexpr int64_t kMaxBandwidthBytes = int64_t{10} << 30;
// What QEMU may expect the rest to take; generous, so that the first pass is the last.
constexpr int64_t kDowntimeLimitMs = 10'000;
// QEMU's own values of the two.
constexpr int64_t kDefaultBandwidthBytes = int64_t{128} << 20;
constexpr int64_t kDefaultDowntimeLimitMs = 300;

constexpr std::array<std::string_view, 3> kSourceOn = {"events", "x-ignore-shared",
                                                       "pause-before-switchover"};
constexpr std::array<std::string_view, 3> kDestinationOn = {"events", "x-ignore-shared",
                                                            "late-block-activate"};
constexpr std::array<std::string_view, 2> kOffAfterLoad = {"x-ignore-shared",
                                                           "late-block-activate"};
// return-path: with it the destination could make the source resume, or keep it waiting.
// The others change the stream's form or what is done with RAM.
constexpr std::array<std::string_view, 18> kOff = {
    "return-path",   "postcopy-ram", "postcopy-preempt", "postcopy-blocktime", "multifd",
    "zero-copy-send", "xbzrle",      "compress",         "rdma-pin-all",       "auto-converge",
    "dirty-limit",   "release-ram",  "x-colo",           "block",
    "background-snapshot", "mapped-ram", "fixed-ram",    "switchover-ack"};
// What a relocation alone has use for. One that stays on makes a later save leave the RAM out.
constexpr std::array<std::string_view, 3> kOnlyForRelocations = {
    "x-ignore-shared", "pause-before-switchover", "late-block-activate"};

bool Names(std::span<const std::string_view> list, std::string_view name) {
  for (std::string_view entry : list) {
    if (entry == name) return true;
  }
  return false;
}

absl::StatusOr<SettingsPlan> PlanCapabilities(const Json& capabilities,
                                              std::span<const std::string_view> on) {
  for (std::string_view name : on) {
    bool listed = false;
    for (const Json& entry : capabilities) listed |= StringAt(entry, "capability") == name;
    if (!listed) {
      return absl::UnimplementedError(
          absl::StrFormat("this QEMU has no migration capability %s", name));
    }
  }
  SettingsPlan plan;
  for (const Json& entry : capabilities) {
    const std::string name = StringAt(entry, "capability");
    const bool state = BoolAt(entry, "state");
    const bool wanted = Names(on, name);
    if (state == wanted || (!wanted && !Names(kOff, name))) continue;
    plan.apply.capabilities.push_back({{"capability", name}, {"state", wanted}});
    plan.restore.capabilities.push_back({{"capability", name}, {"state", state}});
  }
  return plan;
}

// Sets parameter `name` to `value` if it has another value now. A parameter that QEMU does not
// report is not one that can be restored: left alone.
void PlanParameter(const Json& parameters, const char* name, const Json& value,
                   SettingsPlan& plan) {
  const Json& before = MemberAt(parameters, name);
  if (before.is_null() || before == value) return;
  plan.apply.parameters[name] = value;
  plan.restore.parameters[name] = before;
}

}  // namespace

absl::StatusOr<SettingsPlan> PlanSourceSettings(const Json& capabilities, const Json& parameters) {
  absl::StatusOr<SettingsPlan> plan = PlanCapabilities(capabilities, kSourceOn);
  if (!plan.ok()) return plan;
  PlanParameter(parameters, "max-bandwidth", Json(kMaxBandwidthBytes), *plan);
  PlanParameter(parameters, "downtime-limit", Json(kDowntimeLimitMs), *plan);
  // The stream goes through a descriptor to this process: encryption is the daemons' matter.
  PlanParameter(parameters, "tls-creds", Json(""), *plan);
  return plan;
}

Json LoadCapabilitiesOn(const Json& capabilities) {
  Json on = Json::array();
  for (const Json& entry : capabilities) {
    if (BoolAt(entry, "state") && Names(kOffAfterLoad, StringAt(entry, "capability"))) {
      on.push_back(entry);
    }
  }
  return on;
}

absl::StatusOr<SettingsPlan> PlanNoRelocation(const Json& capabilities, const Json& parameters) {
  SettingsPlan plan;
  for (const Json& entry : capabilities) {
    const std::string name = StringAt(entry, "capability");
    if (!BoolAt(entry, "state") || !Names(kOnlyForRelocations, name)) continue;
    plan.apply.capabilities.push_back({{"capability", name}, {"state", false}});
  }
  if (MemberAt(parameters, "max-bandwidth") == Json(kMaxBandwidthBytes)) {
    plan.apply.parameters["max-bandwidth"] = kDefaultBandwidthBytes;
  }
  if (MemberAt(parameters, "downtime-limit") == Json(kDowntimeLimitMs)) {
    plan.apply.parameters["downtime-limit"] = kDefaultDowntimeLimitMs;
  }
  return plan;
}

absl::StatusOr<SettingsPlan> PlanDestinationSettings(const Json& capabilities,
                                                     const Json& parameters) {
  absl::StatusOr<SettingsPlan> plan = PlanCapabilities(capabilities, kDestinationOn);
  if (!plan.ok()) return plan;
  PlanParameter(parameters, "tls-creds", Json(""), *plan);
  return plan;
}

}  // namespace postcopy
