// What LostSessions does about VMs that are in the middle of a session of which this host has no
// readable record: the file is damaged, or somebody has removed it.
//
// What the VMM's hook keeps, what QEMU says of itself and the other daemon tell then what can be
// done. Nothing is started or ended on less than that; what must not be ended is told.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <set>

#include "absl/strings/str_cat.h"
#include "core/page_map.h"
#include "engine/keepsake.h"
#include "platform/duplicate_fd.h"
#include "relocation/lost_sessions.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

struct Pages {
  uint64_t missing = 0;
  uint64_t lost = 0;  // for good
};

Pages CountPages(const Keepsake& keepsake) {
  const auto bytes = keepsake.page_bytes();
  const auto copy = std::make_unique<std::atomic<uint8_t>[]>(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) copy[i].store(bytes[i].load());
  const MemoryLayout layout = keepsake.layout();
  PageMap map(layout, {copy.get(), bytes.size()});
  map.Recover(std::vector<uint64_t>(layout.regions.size(), 1));
  return {map.outstanding_pages() - map.poisoned_pages(), map.poisoned_pages()};
}

const UnreadableRecord* FindUnreadable(const OwnershipStore::Records& records,
                                       const SessionId& session) {
  for (const UnreadableRecord& record : records.unreadable) {
    if (record.session == session && record.role != SessionRole::kSource) return &record;
  }
  return nullptr;
}

bool HasReadable(const OwnershipStore::Records& records, const SessionId& session) {
  return std::any_of(records.readable.begin(), records.readable.end(), [&](const auto& record) {
    return record.role == SessionRole::kDestination && record.session == session;
  });
}

std::string FileText(const UnreadableRecord& record) {
  return absl::StrCat(record.path, ": ", record.cause);
}

// Of a VM that waits for memory of a session without a readable record.
std::string ArmedText(const std::string& vm, int vmm_pid, const SessionId& session,
                      const OwnershipStore::Records& records) {
  const UnreadableRecord* const unreadable = FindUnreadable(records, session);
  return absl::StrCat("VM ", vm, " waits for memory of session ", session.ToString(),
                      ", and this host's record of that session ",
                      unreadable == nullptr
                          ? "is missing"
                          : absl::StrCat("cannot be read (", FileText(*unreadable), ")"),
                      ". Do not end process ", vmm_pid, ": the VM may run nowhere else");
}

std::string ListOf(const std::vector<UnreadableRecord>& records) {
  std::string text;
  for (const UnreadableRecord& record : records) {
    absl::StrAppend(&text, text.empty() ? "" : "; ", FileText(record));
  }
  return text;
}

}  // namespace

LostSessions::Settled LostSessions::SettleUnrecorded(const VmRecord& vm,
                                                     const OwnershipStore::Records& records) {
  const SessionId session = vm.arming->session_id;
  const auto wait = [&](const std::string& cause) {
    SayUnsettled(vm.name, session.ToString(), cause);
    return Settled{};
  };
  auto memfd = DuplicateFd(vm.arming->keepsake);
  if (!memfd.ok()) return wait(memfd.error().message);
  auto keepsake = Keepsake::Open(*std::move(memfd));
  if (!keepsake.ok()) return wait(keepsake.error().message);
  const UnreadableRecord* const unreadable = FindUnreadable(records, session);
  OwnershipRecord record;
  if (unreadable != nullptr && unreadable->details.has_value()) record = *unreadable->details;
  record.session = session;
  record.role = SessionRole::kDestination;
  record.vm = vm.name;
  record.vmm = IdentityOf(vm);
  if (record.peer.empty()) record.peer = keepsake->header().control_address;
  if (record.peer.empty()) return wait("there is no record, and the VMM does not know its source");
  const Pages pages = CountPages(*keepsake);
  record.mark = pages.lost > 0 ? OwnershipMark::kIncomplete : OwnershipMark::kOwner;
  // A guest that this host's daemon has started was its own by then.
  if (keepsake->resumed_at_us() == 0) {
    const auto there = parts_.peers.ConnectSource(record.peer)->Query(session.ToString());
    if (!there.ok()) return wait(there.status().ToString());
    if (*there == RecordedOutcome::kCommitted && pages.missing == 0 && pages.lost == 0) {
      record.mark = OwnershipMark::kArrived;
    } else if (*there != RecordedOutcome::kHandedOver) {
      // A daemon that does not know what it has recorded may neither run this guest nor end it.
      return wait(absl::StrCat("the record is missing or unreadable, and ", record.peer,
                               " has not handed the VM over"));
    }
  }
  auto registered = parts_.registry.Find(vm.name);
  if (!registered.ok()) return wait(registered.status().ToString());
  spdlog::warn("session {}, vm {}, the record is missing or unreadable: written again as {}",
               session.ToString(), vm.name, NameOf(record.mark));
  if (record.mark != OwnershipMark::kArrived) {
    return TakeUpDestination(record, *std::move(registered));
  }
  const absl::Status written = parts_.store.Write(record);
  if (!written.ok()) return wait(written.ToString());
  return {.done = SettleArrived(record)};
}

LostSessions::Settled LostSessions::SettleUnreadableSource(const VmRecord& vm,
                                                           OwnershipRecord details) {
  auto vmm = parts_.connect_vmm(vm);
  if (!vmm.ok()) return {};
  const auto state = (*vmm)->QueryState();
  if (!state.ok()) return {};
  vmm->reset();
  // Whether the guest ran is not known any more.
  details.run = true;
  if (*state == GuestState::kHeldAtSwitchover) {  // its state has not left it: nobody else has it
    details.mark = OwnershipMark::kPrepared;
    return SettleSource(details);
  }
  if (*state != GuestState::kSent) return {.done = true};
  // It may have been handed over. If it was not, handing it over now is as good: the guest stands
  // where its state was taken, and the destination alone decides.
  details.mark = OwnershipMark::kHandedOver;
  if (const absl::Status written = parts_.store.Write(details); !written.ok()) {
    SayUnsettled(details, written);
    return {};
  }
  spdlog::warn("session {}, vm {}, the record cannot be read: written again as {}",
               details.session.ToString(), vm.name, NameOf(details.mark));
  return SettleHandedOver(details);
}

std::string LostSessions::UnrecordedText(const std::string& vm,
                                         const absl::StatusOr<VmRecord>& registered,
                                         const OwnershipStore::Records& records) const {
  if (registered.ok() && registered->arming.has_value()) {
    if (HasReadable(records, registered->arming->session_id)) return "";
    return absl::StrCat(ArmedText(vm, registered->pid(), registered->arming->session_id, records), ". It is not taken up yet: ", WhyNot(vm, registered->pid()),
                        ". `postcopyctl recover` at its source tells who owns it");
  }
  if (!records.readable.empty() && records.unreadable.empty()) return "";
  if (registered.ok()) {
    auto vmm = parts_.connect_vmm(*registered);
    const auto state = vmm.ok() ? (*vmm)->QueryState() : vmm.status();
    const bool explained = !records.readable.empty() &&
                           records.readable.back().mark != OwnershipMark::kRolledBack;
    if (!explained && state.ok() &&
        (*state == GuestState::kSent || *state == GuestState::kHeldAtSwitchover)) {
      return absl::StrCat(
          "VM ", vm, " stands still here in the middle of a relocation or after one, and this host "
          "has no record of that which can be read",
          records.unreadable.empty() ? "" : absl::StrCat(" (", ListOf(records.unreadable), ")"),
          ". Do not end process ", registered->pid(),
          " and do not let it run (`cont`): the VM may run at another host and need memory that only "
          "this process has. `postcopyctl recover` at the destination tells who owns it");
    }
  }
  if (!records.readable.empty() || records.unreadable.empty()) return "";
  return absl::StrCat("no record of VM ", vm, " on this host can be read, and these may be of it: ",
                      ListOf(records.unreadable),
                      ". Do not end its VMM, here or elsewhere, before `postcopyctl recover` at the "
                      "other host has told who owns it");
}

std::string LostSessions::ProblemOf(const VmOverview& vm, const OwnershipStore::Records& all) {
  if (vm.armed_for.has_value()) {
    if (HasReadable(all, *vm.armed_for)) return "";
    return ArmedText(vm.name, vm.pid, *vm.armed_for, all);
  }
  for (const UnreadableRecord& record : all.unreadable) {
    if (record.details.has_value() ? record.details->vm == vm.name
                                   : std::none_of(all.readable.begin(), all.readable.end(),
                                                  [&](const auto& known) { return known.vm == vm.name; })) {
      return absl::StrCat("a record that ", record.details.has_value() ? "is" : "may be",
                          " of this VM cannot be read (", FileText(record), "); do not end process ",
                          vm.pid, " before `postcopyctl recover ", vm.name, "` has told more");
    }
  }
  return "";
}

std::vector<Progress> LostSessions::Owed() const {
  std::vector<Progress> owed;
  const auto add = [&owed](const std::string& vm, const SessionId& session, const std::string& peer) {
    Progress progress;
    progress.vm = vm;
    progress.session = session.ToString();
    progress.peer = peer;
    progress.role = SessionRole::kSource;
    progress.state = SessionState::kHandedOver;
    owed.push_back(std::move(progress));
  };
  std::set<SessionId> recorded;
  const auto records = parts_.store.ReadAll();
  if (!records.ok()) return owed;  // what is fenced, and why, cannot be told apart
  for (const OwnershipRecord& record : records->readable) {
    if (record.role != SessionRole::kSource) continue;
    recorded.insert(record.session);
    if (record.mark == OwnershipMark::kHandedOver && record.vmm.pid != 0 && !HasEnded(record.vmm)) {
      add(record.vm, record.session, record.peer);
    }
  }
  // It stands behind a fence, and no record that can be read tells why.
  for (const VmOverview& vm : parts_.registry.List()) {
    if (vm.fenced_for.has_value() && recorded.count(*vm.fenced_for) == 0) {
      add(vm.name, *vm.fenced_for, "");
    }
  }
  return owed;
}

}  // namespace postcopy
