// What one process and one user may take of what all VMs of a host share at the agent socket:
// connections, names, descriptors (docs/agent-protocol.md, "Limits").
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace postcopy {

inline constexpr size_t kMaxAgentClients = 1024;
inline constexpr size_t kMaxAgentClientsPerProcess = 16;
// Of every user but root, who may do anything here.
inline constexpr size_t kMaxAgentClientsPerUser = 512;
// Of a process: VMs that are registered, and descriptors that the daemon keeps for them (RAM files,
// userfaultfds, keepsakes).
inline constexpr size_t kMaxVmsPerProcess = 8;
inline constexpr size_t kMaxDescriptorsPerProcess = 132;

struct AgentPeer {
  int pid = 0;
  unsigned uid = 0;
};

// Why `peer` may not connect besides those that have, naming the limit; empty: it may.
std::string WhyNoMoreClients(const std::vector<AgentPeer>& connected, const AgentPeer& peer);

// Why process `pid` may not register a VM besides `vms` others of its own, so that the daemon would keep
// `descriptors` for it; empty: it may.
std::string WhyNoMoreVms(int pid, size_t vms, size_t descriptors);

}  // namespace postcopy
