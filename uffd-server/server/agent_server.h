// The daemon's socket for hooks: accepts them, checks what they say against docs/agent-protocol.md,
// and moves messages between them and the VmRegistry.
//
// One thread does all of it and never waits for a client. Not responsible for what a registered VM
// is used for.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "attach/agent_connection.h"
#include "platform/pidfd.h"
#include "platform/unique_fd.h"
#include "platform/unix_channel.h"
#include "server/agent_limits.h"
#include "server/daemon_thread.h"
#include "server/vm_registry.h"

namespace postcopy {

struct AgentServerOptions {
  std::string runtime_dir = "/run/postcopy";  // made if it does not exist
  unsigned socket_mode = 0660;
  std::string socket_group = "";  // whose processes may register VMs; empty: the daemon's own
};

class AgentServer {
 public:
  // Listens on <runtime_dir>/agent.sock and starts the thread. A socket that nobody listens on is
  // removed first. kAlreadyExists: another daemon is alive there. `registry` outlives the server.
  static absl::StatusOr<std::unique_ptr<AgentServer>> Start(AgentServerOptions options,
                                                            VmRegistry& registry);
  // Closes every connection, ends the thread and removes the socket. The VMs run on, and keep what
  // is armed.
  ~AgentServer();
  AgentServer(const AgentServer&) = delete;
  AgentServer& operator=(const AgentServer&) = delete;

  const std::string& socket_path() const { return socket_path_; }

 private:
  using Clock = std::chrono::steady_clock;

  struct Client {
    AgentConnection connection;
    Pidfd process;
    bool registered = false;
    unsigned uid = 0;  // of the process when it connected
    Clock::time_point connected_at;
    std::string vm_name;  // for log lines
  };
  // Both ends of a pipe that wakes the thread; shared with the registry's wake function.
  struct WakePipe {
    UniqueFd read_end;
    UniqueFd write_end;
  };

  AgentServer(VmRegistry& registry, std::string socket_path, UnixListener listener,
              UniqueFd device, std::shared_ptr<WakePipe> wake);

  // Everything below runs on the thread.
  void Run();
  void WaitForWork();
  void AcceptClients();
  void AcceptClient(UnixChannel channel);
  // Tells a client that it may not connect, and the log, though not a thousand times a second.
  void TurnAway(UnixChannel channel, const std::string& reason);
  // Ends the other connections that have registered this VM: one is enough.
  void DropOthersOf(const std::string& vm_name, AgentClientId kept);
  void SendCommands();
  void ReadClient(AgentClientId id);
  // False: the client was dropped.
  bool Handle(AgentClientId id, AgentConnection::Received received);
  bool HandleRegister(AgentClientId id, AgentConnection::Received received);
  void Refuse(AgentClientId id, uint32_t snapshot, const std::string& reason);
  void Violation(AgentClientId id, const std::string& reason);
  void Drop(AgentClientId id);
  void DropSilentClients();
  void RemoveEndedVms();

  VmRegistry& registry_;
  const std::string socket_path_;
  const std::shared_ptr<WakePipe> wake_;

  // Of the thread only.
  UnixListener listener_;
  UniqueFd device_;
  std::map<AgentClientId, Client> clients_;
  AgentClientId last_id_ = 0;
  Clock::time_point turned_away_{};   // the last that the log has of
  Clock::time_point accept_again_{};  // after accept() failed for want of descriptors
  bool process_ended_ = false;

  DaemonThread thread_;  // last: it uses all of the above
};

}  // namespace postcopy
