#include "server/vm_registry.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "platform/duplicate_fd.h"
#include "server/agent_limits.h"
#include "server/status_of.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kReleaseTimeout{5'000};

absl::Status NotRegistered(std::string_view name) {
  return absl::NotFoundError(absl::StrFormat(
      "no VM named \"%s\" has registered with this host's daemon (a QEMU started without "
      "libpostcopy-preload.so is not seen)",
      name));
}

absl::Status OutOfDescriptors(const Error& error) {
  return absl::ResourceExhaustedError(error.message);
}

absl::StatusOr<VmBlock> Duplicate(const VmBlock& block) {
  VmBlock copy{block.kind, block.address, block.size_bytes, block.file_offset,
               block.name, block.path,    UniqueFd(),       block.file_id};
  if (block.ram_file.valid()) {
    auto fd = DuplicateFd(block.ram_file);
    if (!fd.ok()) return OutOfDescriptors(fd.error());
    copy.ram_file = std::move(*fd);
  }
  return copy;
}

absl::StatusOr<VmRecord> Duplicate(const VmRecord& record) {
  auto process = record.process.Duplicate();
  if (!process.ok()) return OutOfDescriptors(process.error());
  VmRecord copy;
  copy.name = record.name;
  copy.process = std::move(*process);
  copy.qmp_path = record.qmp_path;
  copy.problem = record.problem;
  copy.connected = record.connected;
  copy.fenced_for = record.fenced_for;
  copy.can_be_fenced = record.can_be_fenced;
  for (const VmBlock& block : record.blocks) {
    auto duplicate = Duplicate(block);
    if (!duplicate.ok()) return duplicate.status();
    copy.blocks.push_back(*std::move(duplicate));
  }
  if (record.arming.has_value()) {
    auto userfault = DuplicateFd(record.arming->userfault);
    if (!userfault.ok()) return OutOfDescriptors(userfault.error());
    auto keepsake = DuplicateFd(record.arming->keepsake);
    if (!keepsake.ok()) return OutOfDescriptors(keepsake.error());
    copy.arming.emplace(VmArming{record.arming->session_id, record.arming->blocks,
                                 std::move(*userfault), std::move(*keepsake)});
  }
  return copy;
}

size_t CountDescriptors(const VmRecord& record) {
  const auto files = std::count_if(record.blocks.begin(), record.blocks.end(),
                                   [](const VmBlock& block) { return block.ram_file.valid(); });
  return static_cast<size_t>(files) + (record.arming.has_value() ? 2 : 0);
}

absl::StatusOr<VmRecord> MakeRecord(VmRegistry::Registration registration) {
  wire::RegisterMessage& message = registration.message;
  VmRecord record;
  record.name = message.vm_name;
  record.process = std::move(registration.process);
  record.qmp_path = std::move(message.qmp_path);
  record.problem = std::move(message.problem);
  record.connected = true;
  record.fenced_for = message.fenced_session;
  record.can_be_fenced = message.version >= wire::kFirstVersionWithFence;
  std::vector<size_t> armed_blocks;
  size_t next_file = 0;
  for (wire::RegisterBlock& block : message.blocks) {
    if (block.armed) armed_blocks.push_back(record.blocks.size());
    const bool shared = block.kind == wire::BlockKind::kSharedFile;
    VmBlock& added = record.blocks.emplace_back(
        VmBlock{block.kind, block.address, block.size_bytes, block.file_offset,
                std::move(block.name), std::move(block.path), UniqueFd()});
    if (!shared) continue;
    added.ram_file = std::move(registration.ram_files[next_file++]);
    const auto file_id = QueryFileId(added.ram_file.get());
    if (!file_id.ok()) return StatusOf(file_id.error());
    added.file_id = *file_id;
  }
  if (message.armed_session.has_value()) {
    record.arming.emplace(VmArming{*message.armed_session, std::move(armed_blocks),
                                   std::move(registration.userfault),
                                   std::move(registration.keepsake)});
  }
  return record;
}

}  // namespace

// --- for the orchestrator ------------------------------------------------------------------------

std::vector<VmOverview> VmRegistry::List() const {
  std::vector<VmOverview> overviews;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, vm] : vms_) {
    const VmRecord& record = vm.record;
    VmOverview& overview = overviews.emplace_back(
        VmOverview{name, record.pid(), record.qmp_path, record.problem});
    for (const VmBlock& block : record.blocks) overview.ram_bytes += block.size_bytes;
    if (record.arming.has_value()) overview.armed_for = record.arming->session_id;
    overview.fenced_for = record.fenced_for;
  }
  return overviews;
}

std::vector<FileBlock> VmRegistry::FileBlocks() const {
  std::vector<FileBlock> found;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, vm] : vms_) {
    if (vm.record.process.HasEnded()) continue;
    for (const VmBlock& block : vm.record.blocks) {
      if (block.kind != wire::BlockKind::kSharedFile) continue;
      found.push_back({name, vm.record.pid(), block.path, block.file_id, block.file_offset,
                       block.size_bytes});
    }
  }
  return found;
}

absl::StatusOr<VmRecord> VmRegistry::Find(std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = vms_.find(name);
  if (found == vms_.end() || found->second.record.process.HasEnded()) return NotRegistered(name);
  return Duplicate(found->second.record);
}

absl::StatusOr<ArmedVm> VmRegistry::Arm(std::string_view name, const SessionId& session_id,
                                        std::chrono::milliseconds timeout, const UniqueFd& keepsake,
                                        const std::vector<size_t>& blocks) {
  auto request = std::make_shared<Request>();
  request->kind = RequestKind::kArm;
  request->session_id = session_id;
  request->blocks = blocks;
  auto kept = DuplicateFd(keepsake);
  if (!kept.ok()) return OutOfDescriptors(kept.error());
  request->keepsake = std::move(*kept);
  if (absl::Status started = StartRequest(name, request); !started.ok()) return started;
  if (absl::Status done = AwaitRequest(name, request, timeout); !done.ok()) return done;

  absl::MutexLock lock(&mutex_);
  const auto found = vms_.find(name);
  if (found == vms_.end()) return NotRegistered(name);
  const VmRecord& record = found->second.record;
  if (!record.arming.has_value() || record.arming->session_id != session_id) {
    return absl::UnavailableError(absl::StrFormat("VM \"%s\" was released meanwhile", name));
  }
  ArmedVm armed;
  auto userfault = DuplicateFd(record.arming->userfault);
  if (!userfault.ok()) return OutOfDescriptors(userfault.error());
  armed.userfault = std::move(*userfault);
  for (const size_t position : record.arming->blocks) {
    auto block = Duplicate(record.blocks[position]);
    if (!block.ok()) return block.status();
    armed.blocks.push_back(*std::move(block));
  }
  return armed;
}

absl::Status VmRegistry::Release(std::string_view name, const SessionId& session_id) {
  auto request = std::make_shared<Request>();
  request->kind = RequestKind::kRelease;
  request->session_id = session_id;
  if (absl::Status started = StartRequest(name, request); !started.ok()) return started;
  return AwaitRequest(name, request, kReleaseTimeout);
}

absl::Status VmRegistry::StartRequest(std::string_view name,
                                      const std::shared_ptr<Request>& request) {
  {
    absl::MutexLock lock(&mutex_);
    auto vm = FindConnected(name);
    if (!vm.ok()) return vm.status();
    VmRecord& record = (*vm)->record;
    Command command;
    command.client = (*vm)->client;
    if (request->kind == RequestKind::kArm) {
      if (request->blocks.empty()) {
        request->blocks.resize(record.blocks.size());
        std::iota(request->blocks.begin(), request->blocks.end(), size_t{0});
      }
      if (request->blocks.empty()) {
        return absl::FailedPreconditionError(
            absl::StrFormat("VM \"%s\" has no RAM block: %s", name, record.problem));
      }
      command.arm.emplace();
      command.arm->session_id = request->session_id;
      command.arm->snapshot = (*vm)->snapshot;
      for (const size_t position : request->blocks) {
        command.arm->blocks.push_back(static_cast<uint16_t>(position));
      }
      if (auto valid = wire::Validate(*command.arm); !valid.ok()) return StatusOf(valid.error());
      auto sent = DuplicateFd(request->keepsake);
      if (!sent.ok()) return OutOfDescriptors(sent.error());
      command.keepsake = std::move(*sent);
    } else {
      if (record.arming.has_value() && record.arming->session_id == request->session_id) {
        record.arming.reset();
      }
      command.release.session_id = request->session_id;
    }
    (*vm)->request = request;
    commands_.push_back(std::move(command));
  }
  Wake();
  return absl::OkStatus();
}

absl::Status VmRegistry::AwaitRequest(std::string_view name,
                                      const std::shared_ptr<Request>& request,
                                      std::chrono::milliseconds timeout) {
  absl::MutexLock lock(&mutex_);
  const auto answered = [&request] { return request->state != RequestState::kWaiting; };
  if (!mutex_.AwaitWithTimeout(absl::Condition(&answered), absl::FromChrono(timeout))) {
    request->state = RequestState::kAbandoned;
    return absl::DeadlineExceededError(absl::StrFormat(
        "the hook of VM \"%s\" did not answer within %d ms", name, timeout.count()));
  }
  switch (request->state) {
    case RequestState::kDone: return absl::OkStatus();
    case RequestState::kFailed:
      return absl::FailedPreconditionError(
          absl::StrFormat("VM \"%s\": %s", name, request->failure));
    case RequestState::kWaiting:
    case RequestState::kAbandoned:
    case RequestState::kLost: break;
  }
  return absl::UnavailableError(
      absl::StrFormat("the hook of VM \"%s\" lost its connection before it answered", name));
}

// --- for AgentServer -----------------------------------------------------------------------------

void VmRegistry::SetWake(std::function<void()> wake) {
  absl::MutexLock lock(&mutex_);
  wake_ = std::move(wake);
}

void VmRegistry::Wake() {
  std::function<void()> wake;
  {
    absl::MutexLock lock(&mutex_);
    wake = wake_;
  }
  if (wake) wake();
}

void VmRegistry::SetObserver(std::function<void(const std::string& name)> registered) {
  absl::MutexLock lock(&observer_mutex_);
  observer_ = std::move(registered);
  if (!observer_) return;
  for (const VmOverview& vm : List()) observer_(vm.name);
}

absl::Status VmRegistry::Register(AgentClientId client, Registration registration) {
  const std::string name = registration.message.vm_name;
  const absl::Status added = Add(client, name, std::move(registration));
  absl::MutexLock lock(&observer_mutex_);
  if (added.ok() && observer_) observer_(name);
  return added;
}

absl::Status VmRegistry::Add(AgentClientId client, const std::string& name,
                             Registration registration) {
  const uint32_t snapshot = registration.message.snapshot;
  auto record = MakeRecord(std::move(registration));
  if (!record.ok()) return record.status();
  absl::MutexLock lock(&mutex_);
  if (Vm* other = FindByClient(client); other != nullptr && other->record.name != name) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "this connection has registered VM \"%s\" before, not \"%s\"", other->record.name, name));
  }
  const auto found = vms_.find(name);
  if (found != vms_.end()) {
    Vm& before = found->second;
    const bool same_process = before.record.pid() == record->pid();
    if (!same_process && !before.record.process.HasEnded()) {
      return absl::AlreadyExistsError(
          absl::StrFormat("a VM named \"%s\" is registered already, pid %d; give each VM of a host "
                          "a POSTCOPY_VM of its own",
                          name, before.record.pid()));
    }
    if (before.client != client) LoseRequest(before);
  }
  if (absl::Status room = MakeRoom(*record); !room.ok()) return room;
  Vm& vm = vms_[name];
  vm.client = client;
  vm.snapshot = snapshot;
  vm.record = *std::move(record);
  return absl::OkStatus();
}

absl::Status VmRegistry::MakeRoom(const VmRecord& record) {
  const int pid = record.pid();
  size_t vms = 0;
  size_t descriptors = CountDescriptors(record);
  for (auto at = vms_.begin(); at != vms_.end();) {
    const Vm& vm = at->second;
    const bool another = vm.record.pid() == pid && at->first != record.name;
    // The hook has gone over to another name: nothing can come of this one any more.
    if (another && vm.client == 0 && !vm.record.arming.has_value()) {
      at = vms_.erase(at);
      continue;
    }
    if (another) {
      ++vms;
      descriptors += CountDescriptors(vm.record);
    }
    ++at;
  }
  const std::string reason = WhyNoMoreVms(pid, vms, descriptors);
  return reason.empty() ? absl::OkStatus() : absl::ResourceExhaustedError(reason);
}

bool VmRegistry::OnArmed(AgentClientId client, const SessionId& session_id, UniqueFd userfault) {
  bool wake = false;
  {
    absl::MutexLock lock(&mutex_);
    Vm* vm = FindByClient(client);
    std::shared_ptr<Request> request = TakeRequest(vm, RequestKind::kArm, session_id);
    if (request == nullptr) return false;
    if (request->state == RequestState::kWaiting) {
      vm->record.arming.emplace(VmArming{session_id, request->blocks, std::move(userfault),
                                         std::move(request->keepsake)});
      request->state = RequestState::kDone;
    } else {  // whoever asked has given up: undo it
      auto release = std::make_shared<Request>();
      release->kind = RequestKind::kRelease;
      release->state = RequestState::kAbandoned;
      release->session_id = session_id;
      vm->request = std::move(release);
      commands_.push_back(
          Command{client, std::nullopt, wire::ReleaseMessage{session_id}, UniqueFd()});
      wake = true;
    }
  }
  if (wake) Wake();
  return true;
}

bool VmRegistry::OnArmFailed(AgentClientId client, const SessionId& session_id, std::string text) {
  return FailRequest(client, RequestKind::kArm, session_id, std::move(text));
}

bool VmRegistry::OnReleased(AgentClientId client, const SessionId& session_id) {
  absl::MutexLock lock(&mutex_);
  auto request = TakeRequest(FindByClient(client), RequestKind::kRelease, session_id);
  if (request == nullptr) return false;
  if (request->state == RequestState::kWaiting) request->state = RequestState::kDone;
  return true;
}

void VmRegistry::OnDisconnected(AgentClientId client) {
  absl::MutexLock lock(&mutex_);
  Vm* vm = FindByClient(client);
  if (vm == nullptr) return;
  LoseRequest(*vm);
  vm->client = 0;
  vm->record.connected = false;
}

std::vector<std::string> VmRegistry::RemoveEnded() {
  std::vector<std::string> names;
  absl::MutexLock lock(&mutex_);
  for (auto at = vms_.begin(); at != vms_.end();) {
    if (at->second.record.process.HasEnded()) {
      LoseRequest(at->second);
      names.push_back(at->first);
      at = vms_.erase(at);
    } else {
      ++at;
    }
  }
  return names;
}

std::vector<int> VmRegistry::ProcessDescriptors() const {
  std::vector<int> descriptors;
  absl::MutexLock lock(&mutex_);
  for (const auto& [name, vm] : vms_) descriptors.push_back(vm.record.process.fd());
  return descriptors;
}

std::vector<VmRegistry::Command> VmRegistry::TakeCommands() {
  absl::MutexLock lock(&mutex_);
  return std::exchange(commands_, {});
}

// --- under the lock ------------------------------------------------------------------------------

VmRegistry::Vm* VmRegistry::FindByClient(AgentClientId client) {
  for (auto& [name, vm] : vms_) {
    if (vm.client == client) return &vm;
  }
  return nullptr;
}

absl::StatusOr<VmRegistry::Vm*> VmRegistry::FindConnected(std::string_view name) {
  const auto found = vms_.find(name);
  if (found == vms_.end()) return NotRegistered(name);
  Vm& vm = found->second;
  if (vm.client == 0) {
    return absl::UnavailableError(
        absl::StrFormat("the hook of VM \"%s\" (pid %d) is not connected", name, vm.record.pid()));
  }
  if (vm.request != nullptr) {
    return absl::UnavailableError(
        absl::StrFormat("the hook of VM \"%s\" has not answered an earlier request yet", name));
  }
  return &vm;
}

std::shared_ptr<VmRegistry::Request> VmRegistry::TakeRequest(Vm* vm, RequestKind kind,
                                                             const SessionId& session_id) {
  if (vm == nullptr || vm->request == nullptr) return nullptr;
  if (vm->request->kind != kind || vm->request->session_id != session_id) return nullptr;
  return std::exchange(vm->request, nullptr);
}

void VmRegistry::LoseRequest(Vm& vm) {
  if (vm.request != nullptr && vm.request->state == RequestState::kWaiting) {
    vm.request->state = RequestState::kLost;
  }
  vm.request.reset();
}

}  // namespace postcopy
