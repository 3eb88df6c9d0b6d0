// The VMM's side of the agent protocol: registers the process's RAM blocks with the host's daemon,
// stays registered, and arms, releases, fences and unfences on its request (docs/agent-protocol.md).
//
// Owns one thread, asleep on its socket but for a connection that has to be made again. Not
// responsible for finding the blocks (preload/, abi/) and for deciding when to arm (the daemon).
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "attach/agent_connection.h"
#include "attach/block_table.h"
#include "attach/fencing.h"
#include "core/result.h"
#include "platform/guest_mapping.h"
#include "platform/quiet_thread.h"
#include "platform/unique_fd.h"
#include "platform/waiter.h"
#include "wire/agent_protocol.h"

namespace postcopy {

inline constexpr const char* kDefaultAgentPath = "/run/postcopy/agent.sock";

struct AttachOptions {
  std::string vm_name;
  std::string agent_path = kDefaultAgentPath;
  std::string qmp_path;  // empty: none
  // Told what a person should know, one line each, without prefix and newline; on the client's
  // thread. Must not throw.
  std::function<void(const std::string&)> notice;
  // Pauses between attempts to reach the daemon double from the first to the longest.
  std::chrono::milliseconds first_pause{100};
  // Short, so that a daemon that comes back finds its VMs within a second.
  std::chrono::milliseconds longest_pause{400};
  std::chrono::milliseconds rejected_pause{5000};
};

class AttachClient {
 public:
  // Starts the thread and returns; the daemon need not be there, and it is not looked for before
  // `blocks` holds something. `blocks` outlives the client, which is its one collector.
  // kInvalidArgument: a name or path that the protocol does not carry.
  static Result<std::unique_ptr<AttachClient>> Start(AttachOptions options, BlockTable& blocks);

  // Ends the connection and the thread and closes the kept userfaultfd: if the daemon holds none
  // either, what is missing reads as zero from then on. Blocks until a request in progress is done.
  // Not in a forked child.
  ~AttachClient();
  AttachClient(const AttachClient&) = delete;
  AttachClient& operator=(const AttachClient&) = delete;

  // Says that `blocks` has changed. One write(2) to an eventfd; any thread, also inside mmap().
  void BlocksChanged() { waiter_.WakeUp(); }

 private:
  // What was asked of userfaultfd, kept until the daemon releases it.
  struct Armed {
    SessionId session_id;
    UniqueFd userfault;  // a duplicate of the daemon's
    UniqueFd keepsake;   // the daemon's, kept for the next one
    std::vector<uint64_t> block_ids;
  };
  // What the daemon has had made inaccessible, until it has that undone.
  struct Fenced {
    SessionId session_id;
    Fence fence;
  };
  enum class Ending {
    kLost,      // the daemon is gone or does not answer: try again soon
    kRejected,  // it refused, or one side broke the protocol: trying again soon would not help
    kStopping,
  };

  AttachClient(AttachOptions options, BlockTable& blocks, Waiter waiter,
               Result<PageTableView> page_table);

  // Everything below runs on the thread only.
  void Run();
  std::optional<AgentConnection> Connect();
  Ending Converse(AgentConnection& connection);
  Result<void> SendRegister(AgentConnection& connection);
  std::optional<Ending> TakeMessages(AgentConnection& connection);
  std::optional<Ending> Handle(AgentConnection& connection, AgentConnection::Received received);
  std::optional<Ending> OnRegistered(const wire::RegisteredMessage& message,
                                     std::vector<UniqueFd> descriptors);
  Result<void> OnArm(AgentConnection& connection, const wire::ArmMessage& message,
                     UniqueFd keepsake);
  Result<void> Arm(const wire::ArmMessage& message, UniqueFd keepsake);
  Result<void> OnRelease(AgentConnection& connection, const wire::ReleaseMessage& message);
  Result<void> OnFence(AgentConnection& connection, const wire::FenceMessage& message);
  Result<void> Fence(const wire::FenceMessage& message);
  Result<void> OnUnfence(AgentConnection& connection, const wire::UnfenceMessage& message);
  // Of the last REGISTER's blocks those at `positions`, if they are still what they were then.
  Result<std::vector<BlockTable::Block>> BlocksAt(uint32_t snapshot,
                                                  const std::vector<uint16_t>& positions) const;
  // Those of `ids` that are still mapped.
  std::vector<BlockTable::Block> BlocksOf(const std::vector<uint64_t>& ids) const;
  // Why a daemon that is started again would look for this VM in vain, as a problem of the VM; empty:
  // it would not.
  std::string WhyCutOff() const;
  // Looks whether that has changed; then it is to be registered.
  bool CutOffHasChanged();
  void Pause(std::chrono::milliseconds pause);
  // Says `text` once for as long as the daemon is missing.
  void SayMissing(const std::string& text);
  // Says `text` unless it was the last thing said.
  void Say(const std::string& text);

  const AttachOptions options_;
  BlockTable& blocks_;
  Waiter waiter_;
  // Relaxed: the wake-up that follows the store is what the thread synchronises with.
  std::atomic<bool> stopping_{false};
  std::optional<QuietThread> thread_;

  // Of the thread only.
  const Result<PageTableView> page_table_;
  UniqueFd device_;
  std::optional<Armed> armed_;
  std::optional<Fenced> fenced_;
  BlockTable::Snapshot sent_;     // what the last REGISTER said
  uint32_t count_registers_ = 0;  // its snapshot number
  int count_awaited_ = 0;         // REGISTERs of this connection without an answer
  bool missing_ = false;
  // A VMM may confine itself after its RAM is mapped (QEMU's -chroot and -runas do): looked at again
  // after a second, then ever more rarely.
  std::string cut_off_;  // as registered last
  std::chrono::milliseconds look_again_{0};
  std::string last_said_;
};

}  // namespace postcopy
