// The VMs of this host that have registered with its daemon, by name.
//
// Knows what each VM's hook has said (RAM blocks, monitor socket, armed or not) and carries the
// orchestrator's requests (arm, release, fence, unfence) to it and back. Not responsible for: sockets
// and frames (agent_server.h moves them), for the VM's state (vmm/) and for what is done with its
// memory. Thread-safe; nothing but Arm(), Release(), AwaitFence() and Unfence() blocks.
//
// vm_fence.cc has the fence, vm_registry.cc the rest.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "core/session_id.h"
#include "platform/pidfd.h"
#include "platform/ram_file.h"
#include "platform/unique_fd.h"
#include "wire/agent_protocol.h"

namespace postcopy {

// One RAM block as the hook saw it being mapped.
struct VmBlock {
  wire::BlockKind kind = wire::BlockKind::kAnonymous;
  uint64_t address = 0;  // in the VMM's address space, page-aligned
  uint64_t size_bytes = 0;
  uint64_t file_offset = 0;  // kSharedFile only
  std::string name;          // empty: the hook cannot know it; match by path
  std::string path;          // kSharedFile only, as /proc/<pid>/fd shows it
  UniqueFd ram_file;         // kSharedFile only
  FileId file_id = {};       // kSharedFile only
};

// A userfaultfd of the VM's process, with the session that it was armed for.
struct VmArming {
  SessionId session_id;
  std::vector<size_t> blocks;  // positions in VmRecord::blocks
  UniqueFd userfault;
  UniqueFd keepsake;  // as Arm() was given it, perhaps by an earlier daemon: engine/keepsake.h
};

// What the daemon knows about one VM. Every descriptor is a duplicate that belongs to this record.
struct VmRecord {
  std::string name;
  Pidfd process;
  std::string qmp_path;
  std::vector<VmBlock> blocks;  // in the order in which the VMM mapped them
  std::string problem;          // not empty: why this VM's RAM can't be relocated
  bool connected = false;       // false: the process lives, its hook has yet to come back
  std::optional<VmArming> arming;
  // The session whose fence keeps the VMM out of its own guest RAM; not beside `arming`.
  std::optional<SessionId> fenced_for;
  bool can_be_fenced = true;  // false: its hook speaks a protocol without FENCE

  int pid() const { return process.pid(); }
};

// A VM for people to see.
struct VmOverview {
  std::string name;
  int pid = 0;
  std::string qmp_path;
  std::string problem;
  uint64_t ram_bytes = 0;
  std::optional<SessionId> armed_for = std::nullopt;
  std::optional<SessionId> fenced_for = std::nullopt;
};

struct ArmedVm {
  UniqueFd userfault;
  std::vector<VmBlock> blocks;  // those that were armed, in the order asked for
};

// Where one RAM block of a VM lies, without its descriptors.
struct FileBlock {
  std::string vm;
  int pid = 0;
  std::string path;  // as /proc/<pid>/fd shows it
  FileId file_id;
  uint64_t file_offset = 0;
  uint64_t size_bytes = 0;
};

// Names one connection of a hook, for as long as the daemon runs.
using AgentClientId = uint64_t;

class VmRegistry {
 public:
  VmRegistry() = default;
  VmRegistry(const VmRegistry&) = delete;
  VmRegistry& operator=(const VmRegistry&) = delete;

  // --- for the orchestrator --------------------------------------------------------------------

  // Every VM, by name. Takes no descriptor: nothing hides a VM from a list.
  std::vector<VmOverview> List() const;
  // Every block in a file, of every VM that lives; none is left out.
  std::vector<FileBlock> FileBlocks() const;
  // kNotFound: no such VM has registered. kResourceExhausted: out of descriptors.
  absl::StatusOr<VmRecord> Find(std::string_view name) const;

  // Asks the VM's hook to empty `blocks` (positions in VmRecord::blocks; none: all of them) and to
  // register them with a userfaultfd, and waits for its answer. From then on every access of the VM
  // to them faults. The blocks' content is lost from the moment of the call, whatever it returns.
  // The hook keeps a duplicate of `keepsake` for a daemon that comes after this one.
  //   kNotFound            no such VM
  //   kFailedPrecondition  the hook refused or failed; its own text. Nothing is armed
  //   kUnavailable         the hook's connection is away or was lost meanwhile
  //   kDeadlineExceeded    no answer within `timeout`; if it comes later, the hook is told to
  //                        release
  absl::StatusOr<ArmedVm> Arm(std::string_view name, const SessionId& session_id,
                              std::chrono::milliseconds timeout, const UniqueFd& keepsake,
                              const std::vector<size_t>& blocks = {});

  // Forgets the userfaultfd of this session and tells the hook to close its duplicate, then waits
  // up to 5 seconds for its answer. The caller has closed its own, or has unregistered every range:
  // what is missing when the last one closes reads as zero. A VM that is not armed for this session
  // is a success. kNotFound, kUnavailable and kDeadlineExceeded as with Arm().
  absl::Status Release(std::string_view name, const SessionId& session_id);

  class FenceRequest;
  // Asks the VM's hook to make the blocks at `addresses` inaccessible to the VMM, and returns at once:
  // AwaitFence() waits for the answer.
  //   kUnimplemented       its hook speaks a protocol that knows no fence
  //   kFailedPrecondition  there is no block at one of the addresses
  //   kNotFound, kUnavailable  as with Arm()
  absl::StatusOr<FenceRequest> BeginFence(std::string_view name, const SessionId& session_id,
                                          const std::vector<uint64_t>& addresses)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // ok: the fence is laid. kFailedPrecondition: it is not, in the hook's words. kUnavailable,
  // kDeadlineExceeded: it may be laid, or be laid later; only Unfence() makes sure that it is not.
  absl::Status AwaitFence(const FenceRequest& fence, std::chrono::milliseconds timeout)
      ABSL_LOCKS_EXCLUDED(mutex_);
  // ok: no fence of this session is there or is laid later. Waits up to 5 seconds for the answer to a
  // request before it, and as long for its own. kFailedPrecondition: the hook could not lift it.
  // kNotFound, kUnavailable and kDeadlineExceeded as with Arm().
  absl::Status Unfence(std::string_view name, const SessionId& session_id)
      ABSL_LOCKS_EXCLUDED(mutex_);

  // `registered` is called under no lock, in the agent's thread, each time a VM has registered, and at
  // once for those that are there. Empty: nobody is told any more; the last call has returned.
  void SetObserver(std::function<void(const std::string& name)> registered)
      ABSL_LOCKS_EXCLUDED(observer_mutex_, mutex_);

  // --- for AgentServer -------------------------------------------------------------------------

  // `wake` is called, from any thread and under no lock, when TakeCommands() has something. It may be
  // called once more after it has been replaced.
  void SetWake(std::function<void()> wake);

  struct Registration {
    wire::RegisterMessage message;
    std::vector<UniqueFd> ram_files;  // one per shared block, in their order
    UniqueFd userfault;               // valid if message.armed_session is set
    UniqueFd keepsake;                // the same
    Pidfd process;
  };
  // Adds or replaces the VM of this name. VMs of the same process whose connection has ended and that
  // are not armed make room for it. kAlreadyExists: another live process has the name;
  // kInvalidArgument: this client registered under another name before; kResourceExhausted: the
  // process has as much as one may have (agent_limits.h).
  absl::Status Register(AgentClientId client, Registration registration)
      ABSL_LOCKS_EXCLUDED(observer_mutex_, mutex_);
  // The hook's answers. False: nobody asked this client for it, a violation.
  bool OnArmed(AgentClientId client, const SessionId& session_id, UniqueFd userfault);
  bool OnArmFailed(AgentClientId client, const SessionId& session_id, std::string text);
  bool OnReleased(AgentClientId client, const SessionId& session_id);
  bool OnFenced(AgentClientId client, const SessionId& session_id);
  bool OnFenceFailed(AgentClientId client, const SessionId& session_id, std::string text);
  bool OnUnfenced(AgentClientId client, const SessionId& session_id);
  bool OnUnfenceFailed(AgentClientId client, const SessionId& session_id, std::string text);
  // The connection is gone. The VM stays, as not connected, while its process lives.
  void OnDisconnected(AgentClientId client);
  // Removes every VM whose process has ended; returns their names.
  std::vector<std::string> RemoveEnded();
  // The descriptors that become readable when a process ends; valid until the next RemoveEnded()
  // or Register(), which the same thread makes.
  std::vector<int> ProcessDescriptors() const;

  struct Command {
    AgentClientId client = 0;
    std::optional<wire::ArmMessage> arm;  // none of arm, fence, unfence: release
    wire::ReleaseMessage release;
    UniqueFd keepsake;  // travels with `arm`
    std::optional<wire::FenceMessage> fence = std::nullopt;
    std::optional<wire::UnfenceMessage> unfence = std::nullopt;
  };
  // What is to be sent to the hooks; each command is returned once.
  std::vector<Command> TakeCommands();

 private:
  enum class RequestKind { kArm, kRelease, kFence, kUnfence };
  enum class RequestState { kWaiting, kDone, kFailed, kLost, kAbandoned };
  // One request of the orchestrator that a hook has not answered yet.
  struct Request {
    RequestKind kind = RequestKind::kArm;
    RequestState state = RequestState::kWaiting;
    SessionId session_id;
    std::vector<size_t> blocks;
    UniqueFd keepsake;
    std::string failure;
  };
  struct Vm {
    AgentClientId client = 0;  // 0: not connected
    uint32_t snapshot = 0;
    VmRecord record;
    std::shared_ptr<Request> request;  // at most one at a time
  };

  Vm* FindByClient(AgentClientId client) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<Vm*> FindConnected(std::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The VM's request, if it is of this kind and session; the VM has none afterwards.
  static std::shared_ptr<Request> TakeRequest(Vm* vm, RequestKind kind, const SessionId& session_id);
  static void LoseRequest(Vm& vm);
  // The hook's answer that `kind` failed. False: no request waits for it.
  bool FailRequest(AgentClientId client, RequestKind kind, const SessionId& session_id,
                   std::string text) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status StartRequest(std::string_view name, const std::shared_ptr<Request>& request)
      ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status AwaitRequest(std::string_view name, const std::shared_ptr<Request>& request,
                            std::chrono::milliseconds timeout) ABSL_LOCKS_EXCLUDED(mutex_);
  void Wake() ABSL_LOCKS_EXCLUDED(mutex_);

  // Makes room for a VM of the process, and checks that there is some. Under its old name it counts
  // as new.
  absl::Status MakeRoom(const VmRecord& record)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Add(AgentClientId client, const std::string& name, Registration registration)
      ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex observer_mutex_;  // held while the observer is called
  std::function<void(const std::string& name)> observer_ ABSL_GUARDED_BY(observer_mutex_);

  mutable absl::Mutex mutex_;
  std::map<std::string, Vm, std::less<>> vms_ ABSL_GUARDED_BY(mutex_);
  std::vector<Command> commands_ ABSL_GUARDED_BY(mutex_);
  std::function<void()> wake_ ABSL_GUARDED_BY(mutex_);
};

// A FENCE that a hook has been sent.
class VmRegistry::FenceRequest {
 private:
  friend class VmRegistry;
  FenceRequest(std::string name, std::shared_ptr<Request> request)
      : name_(std::move(name)), request_(std::move(request)) {}

  std::string name_;
  std::shared_ptr<Request> request_;
};

}  // namespace postcopy
