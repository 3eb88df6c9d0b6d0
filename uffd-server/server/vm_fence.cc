// The fence as VmRegistry's users and the agent server see it.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "server/status_of.h"
#include "server/vm_registry.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kUnfenceTimeout{5'000};

// The blocks' positions in the record.
absl::StatusOr<std::vector<uint16_t>> PositionsOf(const VmRecord& record,
                                                  const std::vector<uint64_t>& addresses) {
  std::vector<uint16_t> positions;
  for (const uint64_t address : addresses) {
    const auto found =
        std::find_if(record.blocks.begin(), record.blocks.end(),
                     [&](const VmBlock& block) { return block.address == address; });
    if (found == record.blocks.end()) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "fence VM \"%s\": the RAM block at %#x is no longer mapped", record.name, address));
    }
    positions.push_back(static_cast<uint16_t>(found - record.blocks.begin()));
  }
  return positions;
}

}  // namespace

absl::StatusOr<VmRegistry::FenceRequest> VmRegistry::BeginFence(
    std::string_view name, const SessionId& session_id, const std::vector<uint64_t>& addresses) {
  auto request = std::make_shared<Request>();
  request->kind = RequestKind::kFence;
  request->session_id = session_id;
  {
    absl::MutexLock lock(&mutex_);
    auto vm = FindConnected(name);
    if (!vm.ok()) return vm.status();
    if (!(*vm)->record.can_be_fenced) {
      return absl::UnimplementedError(absl::StrFormat(
          "VM \"%s\" cannot be fenced: its hook is older than this daemon", name));
    }
    auto positions = PositionsOf((*vm)->record, addresses);
    if (!positions.ok()) return positions.status();
    wire::FenceMessage fence{session_id, (*vm)->snapshot, *std::move(positions)};
    if (auto valid = wire::Validate(fence); !valid.ok()) return StatusOf(valid.error());
    (*vm)->request = request;
    Command& command = commands_.emplace_back();
    command.client = (*vm)->client;
    command.fence = std::move(fence);
  }
  Wake();
  return FenceRequest(std::string(name), std::move(request));
}

absl::Status VmRegistry::AwaitFence(const FenceRequest& fence, std::chrono::milliseconds timeout) {
  return AwaitRequest(fence.name_, fence.request_, timeout);
}

absl::Status VmRegistry::Unfence(std::string_view name, const SessionId& session_id) {
  auto request = std::make_shared<Request>();
  request->kind = RequestKind::kUnfence;
  request->session_id = session_id;
  {
    absl::MutexLock lock(&mutex_);
    // A FENCE on its way is answered first: it could be laid after this call otherwise.
    const auto answered = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      const auto found = vms_.find(name);
      return found == vms_.end() || found->second.request == nullptr;
    };
    mutex_.AwaitWithTimeout(absl::Condition(&answered), absl::FromChrono(kUnfenceTimeout));
    const auto found = vms_.find(name);
    if (found != vms_.end() && !found->second.record.can_be_fenced) return absl::OkStatus();
    auto vm = FindConnected(name);
    if (!vm.ok()) return vm.status();
    if ((*vm)->record.fenced_for != session_id) return absl::OkStatus();
    (*vm)->request = request;
    Command& command = commands_.emplace_back();
    command.client = (*vm)->client;
    command.unfence = wire::UnfenceMessage{session_id};
  }
  Wake();
  return AwaitRequest(name, request, kUnfenceTimeout);
}

// --- the hook's answers --------------------------------------------------------------------------

bool VmRegistry::OnFenced(AgentClientId client, const SessionId& session_id) {
  absl::MutexLock lock(&mutex_);
  Vm* vm = FindByClient(client);
  auto request = TakeRequest(vm, RequestKind::kFence, session_id);
  if (request == nullptr) return false;
  // Also where nobody waits for it any more: Unfence() has to know.
  vm->record.fenced_for = session_id;
  if (request->state == RequestState::kWaiting) request->state = RequestState::kDone;
  return true;
}

bool VmRegistry::OnUnfenced(AgentClientId client, const SessionId& session_id) {
  absl::MutexLock lock(&mutex_);
  Vm* vm = FindByClient(client);
  auto request = TakeRequest(vm, RequestKind::kUnfence, session_id);
  if (request == nullptr) return false;
  vm->record.fenced_for.reset();
  if (request->state == RequestState::kWaiting) request->state = RequestState::kDone;
  return true;
}

bool VmRegistry::OnFenceFailed(AgentClientId client, const SessionId& session_id,
                               std::string text) {
  return FailRequest(client, RequestKind::kFence, session_id, std::move(text));
}

bool VmRegistry::OnUnfenceFailed(AgentClientId client, const SessionId& session_id,
                                 std::string text) {
  return FailRequest(client, RequestKind::kUnfence, session_id, std::move(text));
}

bool VmRegistry::FailRequest(AgentClientId client, RequestKind kind, const SessionId& session_id,
                             std::string text) {
  absl::MutexLock lock(&mutex_);
  auto request = TakeRequest(FindByClient(client), kind, session_id);
  if (request == nullptr) return false;
  request->failure = std::move(text);
  if (request->state == RequestState::kWaiting) request->state = RequestState::kFailed;
  return true;
}

}  // namespace postcopy
