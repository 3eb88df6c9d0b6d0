// What the Relocator tells of all VMs of its host together: the list, and the memory that other hosts
// still need of it. Neither waits long for a VMM or a host that is silent.
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "relocation/relocator.h"

namespace postcopy {
namespace {

// A list waits so long for each of the two answers of a session's VMM.
constexpr std::chrono::milliseconds kBusyGuestLimit{250};

// After this time Owed() queries no further host for its figures; one query takes 2 s at most.
constexpr std::chrono::seconds kOwedFiguresLimit{2};

// Of a source: memory is needed of it by a VM that runs elsewhere, or may.
bool OwesMemory(SessionState state) {
  return state == SessionState::kHandedOver || state == SessionState::kRunning ||
         state == SessionState::kUnknown;
}

}  // namespace

std::vector<VmSummary> Relocator::List() {
  const auto recorded = parts_.store.ReadAll();
  std::vector<VmSummary> vms;
  std::vector<Monitor> monitors;
  std::vector<size_t> asked;  // whose monitors these are, positions in vms
  std::vector<std::pair<size_t, SessionTable::Place>> busy;
  for (VmOverview& overview : parts_.registry.List()) {
    VmSummary vm;
    vm.name = overview.name;
    vm.pid = overview.pid;
    vm.problem = std::move(overview.problem);
    vm.ram_bytes = overview.ram_bytes;
    const SessionTable::Place place = sessions_.Find(overview.name);
    // An ended session may be of an earlier VMM of that name.
    const bool shown = !place.Empty() && (place.Busy() || !place.HasVmmEnded());
    if (shown) {
      vm.in_session = true;
      // List() does not query the other host, which may not answer.
      vm.progress = place.source != nullptr ? place.source->OwnProgress()
                                            : place.destination->Snapshot();
    }
    // A session holds its VMM's monitor, and QEMU answers one client.
    if (place.Busy()) {
      if (!place.Empty()) busy.emplace_back(vms.size(), place);
    } else {
      monitors.push_back({std::move(overview.qmp_path), overview.pid});
      asked.push_back(vms.size());
    }
    if (!shown && vm.problem.empty() && recorded.ok()) {
      vm.problem = LostSessions::ProblemOf(overview, *recorded);
    }
    vms.push_back(std::move(vm));
  }
  const std::vector<GuestAnswer> answers = parts_.ask_guests(monitors);
  for (size_t i = 0; i < answers.size(); ++i) {
    VmSummary& vm = vms[asked[i]];
    vm.guest_state = answers[i].state_text;
    if (vm.problem.empty()) vm.problem = answers[i].problem;
  }
  const auto until = std::chrono::steady_clock::now() + kGuestAnswerLimit;
  for (const auto& [position, place] : busy) {
    if (std::chrono::steady_clock::now() >= until) break;
    vms[position].guest_state = place.GuestState(kBusyGuestLimit);
  }
  return vms;
}

std::vector<Progress> Relocator::Owed() {
  std::vector<Progress> owed;
  std::set<std::string> live;
  const auto until = std::chrono::steady_clock::now() + kOwedFiguresLimit;
  for (const auto& source : sessions_.Sources()) {
    live.insert(source->session());
    if (!OwesMemory(source->state())) continue;
    // How much it is the other host knows, which may not answer.
    const bool ask = std::chrono::steady_clock::now() < until;
    Progress progress = ask ? source->Snapshot() : source->OwnProgress();
    if (OwesMemory(progress.state)) owed.push_back(std::move(progress));
  }
  for (Progress& lost : lost_.Owed()) {
    if (live.count(lost.session) == 0) owed.push_back(std::move(lost));
  }
  return owed;
}

}  // namespace postcopy
