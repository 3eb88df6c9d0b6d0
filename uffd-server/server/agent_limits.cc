#include "server/agent_limits.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace postcopy {

std::string WhyNoMoreClients(const std::vector<AgentPeer>& connected, const AgentPeer& peer) {
  const auto of_process = static_cast<size_t>(std::count_if(
      connected.begin(), connected.end(),
      [&peer](const AgentPeer& other) { return other.pid == peer.pid; }));
  if (of_process >= kMaxAgentClientsPerProcess) {
    return absl::StrFormat("process %d holds %d connections, %d are the limit of a process", peer.pid,
                           of_process, kMaxAgentClientsPerProcess);
  }
  const auto of_user = static_cast<size_t>(std::count_if(
      connected.begin(), connected.end(),
      [&peer](const AgentPeer& other) { return other.uid == peer.uid; }));
  if (peer.uid != 0 && of_user >= kMaxAgentClientsPerUser) {
    return absl::StrFormat("user %d holds %d connections, %d are the limit of a user", peer.uid,
                           of_user, kMaxAgentClientsPerUser);
  }
  if (connected.size() >= kMaxAgentClients) {
    return absl::StrFormat("%d clients are the limit", kMaxAgentClients);
  }
  return "";
}

std::string WhyNoMoreVms(int pid, size_t vms, size_t descriptors) {
  if (vms >= kMaxVmsPerProcess) {
    return absl::StrFormat("process %d has registered %d VMs, %d are the limit of a process", pid, vms,
                           kMaxVmsPerProcess);
  }
  if (descriptors > kMaxDescriptorsPerProcess) {
    return absl::StrFormat("the VMs of process %d need %d descriptors, %d are the limit of a process",
                           pid, descriptors, kMaxDescriptorsPerProcess);
  }
  return "";
}

}  // namespace postcopy
