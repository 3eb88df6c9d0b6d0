#include "vmm/run_state.h"

#include <algorithm>
#include <array>
#include <string>

#include "absl/strings/str_format.h"

namespace postcopy {
namespace {

constexpr std::array kRunStates = {
    RunStateEntry{"running", RunStateUse::kMoved, ""},
    RunStateEntry{"paused", RunStateUse::kMoved, ""},
    RunStateEntry{"prelaunch", RunStateUse::kMoved, ""},
    RunStateEntry{"postmigrate", RunStateUse::kComesBack,
             "an earlier migration has left it stopped; cont, and stop it again if it is to stay paused"},
    RunStateEntry{"finish-migrate", RunStateUse::kPasses, "another migration of it is being finished"},
    RunStateEntry{"inmigrate", RunStateUse::kIncoming, "it waits for a machine itself"},
    RunStateEntry{"suspended", RunStateUse::kItsOwn, "the guest sleeps (S3); wake it first"},
    RunStateEntry{"shutdown", RunStateUse::kItsOwn, "the guest has powered off"},
    RunStateEntry{"guest-panicked", RunStateUse::kItsOwn, "the guest has panicked; reset it first"},
    RunStateEntry{"io-error", RunStateUse::kItsOwn,
             "one of its disks has failed; repair the disk and cont first"},
    RunStateEntry{"watchdog", RunStateUse::kItsOwn, "its watchdog has stopped it; cont or reset it first"},
    RunStateEntry{"internal-error", RunStateUse::kItsOwn, "QEMU or KVM has failed; reset it first"},
    RunStateEntry{"debug", RunStateUse::kItsOwn, "a debugger has stopped it; continue there first"},
    RunStateEntry{"save-vm", RunStateUse::kItsOwn, "a snapshot of it is being taken; wait for its end"},
    RunStateEntry{"restore-vm", RunStateUse::kItsOwn, "a snapshot is being restored; wait for its end"},
    RunStateEntry{"colo", RunStateUse::kItsOwn, "it is one half of a COLO pair; end COLO first"},
};

const RunStateEntry* Find(std::string_view name) {
  const auto found = std::find_if(kRunStates.begin(), kRunStates.end(),
                                  [&](const RunStateEntry& state) { return state.name == name; });
  return found == kRunStates.end() ? nullptr : &*found;
}

}  // namespace

std::span<const RunStateEntry> RunStates() { return kRunStates; }

absl::Status CheckRunStateMovable(std::string_view name) {
  const RunStateEntry* state = Find(name);
  if (state != nullptr && state->use == RunStateUse::kMoved) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat(
      "it is in state %s, neither running nor paused: %s", name,
      state == nullptr ? "which is not known here" : state->why));
}

bool StoppedByItself(std::string_view name) {
  const RunStateEntry* state = Find(name);
  return state == nullptr || state->use == RunStateUse::kItsOwn;
}

}  // namespace postcopy
