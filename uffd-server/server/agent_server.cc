#include "server/agent_server.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_format.h"
#include "platform/duplicate_fd.h"
#include "platform/poll_set.h"
#include "platform/ram_file.h"
#include "platform/userfault.h"
#include "server/status_of.h"
#include "spdlog/spdlog.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRegisterTimeout{10'000};
constexpr milliseconds kAcceptPause{1'000};
constexpr milliseconds kTurnAwayLogPause{1'000};
// Frames are small and a hook reads at once: a full socket is a hook that does not.
constexpr milliseconds kNoWaiting{0};

absl::Status MakeRoomForSocket(const std::string& directory, const std::string& path) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) {
    return absl::InternalError(
        absl::StrFormat("create directory %s: %s", directory, failure.message()));
  }
  if (auto other = UnixChannel::Connect(path); other.ok()) {
    const auto pid = other->QueryPeerPid();
    return absl::AlreadyExistsError(absl::StrFormat(
        "another uffd-server is alive at %s, pid %d", path, pid.ok() ? *pid : 0));
  } else if (other.error().code == ErrorCode::kUnavailable) {
    std::filesystem::remove(path, failure);
  } else if (other.error().code != ErrorCode::kNotFound) {
    return StatusOf(other.error());
  }
  return absl::OkStatus();
}

// Ok if the descriptor can be the RAM file of the block.
absl::Status CheckRamFile(const wire::RegisterBlock& block, const UniqueFd& file) {
  const auto kind = QueryRamFileKind(file.get());
  if (!kind.ok()) return StatusOf(kind.error());
  if (*kind == RamFileKind::kNotAFile) {
    return absl::InvalidArgumentError(absl::StrFormat("RAM file %s is not a file", block.path));
  }
  const auto size_bytes = QueryRamFileSize(file.get());
  if (!size_bytes.ok()) return StatusOf(size_bytes.error());
  if (*size_bytes < block.file_offset + block.size_bytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("RAM file %s has %d bytes, its block needs %d", block.path, *size_bytes,
                        block.file_offset + block.size_bytes));
  }
  return absl::OkStatus();
}

absl::Status CheckUserfault(const UniqueFd& fd) {
  std::error_code failure;
  const auto target =
      std::filesystem::read_symlink(absl::StrFormat("/proc/self/fd/%d", fd.get()), failure);
  if (failure || target.string() == "anon_inode:[userfaultfd]") return absl::OkStatus();
  return absl::InvalidArgumentError("a descriptor is not a userfaultfd: " + target.string());
}

wire::AgentMessage MessageOf(const VmRegistry::Command& command) {
  if (command.arm.has_value()) return *command.arm;
  if (command.fence.has_value()) return *command.fence;
  if (command.unfence.has_value()) return *command.unfence;
  return command.release;
}

}  // namespace

absl::StatusOr<std::unique_ptr<AgentServer>> AgentServer::Start(AgentServerOptions options,
                                                                VmRegistry& registry) {
  const std::string path = options.runtime_dir + "/agent.sock";
  if (absl::Status room = MakeRoomForSocket(options.runtime_dir, path); !room.ok()) return room;
  auto listener = UnixListener::Listen(path, options.socket_mode, options.socket_group);
  if (!listener.ok()) return StatusOf(listener.error());
  auto device = OpenUserfaultDevice();
  if (!device.ok()) {
    spdlog::warn("agent: VMs need a privilege of their own for userfaultfd: {}",
                 device.error().message);
  }
  int ends[2];
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return StatusOf(ErrnoError(errno, "create wake-up pipe"));
  }
  auto wake = std::make_shared<WakePipe>(WakePipe{UniqueFd(ends[0]), UniqueFd(ends[1])});
  std::unique_ptr<AgentServer> server(
      new AgentServer(registry, path, std::move(*listener),
                      device.ok() ? std::move(*device) : UniqueFd(), std::move(wake)));
  registry.SetWake([pipe = server->wake_] {
    const char byte = 'w';
    [[maybe_unused]] const ssize_t written = write(pipe->write_end.get(), &byte, 1);
  });
  auto thread = DaemonThread::Start("pc-agents", [self = server.get()] { self->Run(); });
  if (!thread.ok()) return thread.status();
  server->thread_ = *std::move(thread);
  spdlog::info("agent: listening, path {}", path);
  return server;
}

AgentServer::AgentServer(VmRegistry& registry, std::string socket_path, UnixListener listener,
                         UniqueFd device, std::shared_ptr<WakePipe> wake)
    : registry_(registry),
      socket_path_(std::move(socket_path)),
      wake_(std::move(wake)),
      listener_(std::move(listener)),
      device_(std::move(device)) {}

AgentServer::~AgentServer() {
  registry_.SetWake({});
  const char byte = 'q';
  [[maybe_unused]] const ssize_t written = write(wake_->write_end.get(), &byte, 1);
  thread_.Join();
  listener_.RemovePath();
}

void AgentServer::Run() {
  for (;;) {
    WaitForWork();
    std::array<char, 64> bytes;
    const ssize_t got = read(wake_->read_end.get(), bytes.data(), bytes.size());
    if (got > 0 && std::count(bytes.begin(), bytes.begin() + got, 'q') > 0) break;
    SendCommands();
    AcceptClients();
    std::vector<AgentClientId> ids;
    for (const auto& [id, client] : clients_) ids.push_back(id);
    for (const AgentClientId id : ids) ReadClient(id);
    DropSilentClients();
    RemoveEndedVms();
  }
  while (!clients_.empty()) Drop(clients_.begin()->first);
}

void AgentServer::WaitForWork() {
  const Clock::time_point now = Clock::now();
  Clock::time_point wake_at = Clock::time_point::max();
  PollSet waiting;
  waiting.Add(wake_->read_end.get());
  if (now >= accept_again_) {
    waiting.Add(listener_.fd());
  } else {
    wake_at = accept_again_;
  }
  for (const auto& [id, client] : clients_) {
    waiting.Add(client.connection.fd());
    if (!client.registered) wake_at = std::min(wake_at, client.connected_at + kRegisterTimeout);
  }
  const size_t first_process = waiting.size();
  for (const int fd : registry_.ProcessDescriptors()) waiting.Add(fd);
  std::optional<milliseconds> timeout;
  if (wake_at != Clock::time_point::max()) timeout = std::chrono::ceil<milliseconds>(wake_at - now);
  waiting.Wait(timeout);
  process_ended_ = false;
  for (size_t place = first_process; place < waiting.size(); ++place) {
    process_ended_ |= waiting.readable(place);
  }
}

void AgentServer::AcceptClients() {
  if (Clock::now() < accept_again_) return;
  for (;;) {
    auto channel = listener_.Accept();
    if (channel.ok()) {
      AcceptClient(std::move(*channel));
      continue;
    }
    if (channel.error().code != ErrorCode::kTimeout) {
      spdlog::warn("agent: {}", channel.error().message);
      accept_again_ = Clock::now() + kAcceptPause;
    }
    return;
  }
}

void AgentServer::AcceptClient(UnixChannel channel) {
  const auto pid = channel.QueryPeerPid();
  const auto uid = channel.QueryPeerUser();
  if (!pid.ok() || !uid.ok() || *pid == 0) {
    return TurnAway(std::move(channel), "its process is not visible here (a pid namespace?)");
  }
  std::vector<AgentPeer> connected;
  for (const auto& [id, client] : clients_) connected.push_back({client.process.pid(), client.uid});
  if (auto reason = WhyNoMoreClients(connected, {*pid, *uid}); !reason.empty()) {
    return TurnAway(std::move(channel), reason);
  }
  auto process = channel.HoldPeer();
  if (!process.ok()) return TurnAway(std::move(channel), process.error().message);
  clients_.emplace(++last_id_, Client{AgentConnection(std::move(channel)), std::move(*process),
                                      false, *uid, Clock::now(), ""});
}

void AgentServer::TurnAway(UnixChannel channel, const std::string& reason) {
  AgentConnection connection(std::move(channel));
  (void)connection.Send(wire::ErrorMessage{wire::CutText(reason, wire::kMaxAgentTextBytes)}, {},
                        kNoWaiting);
  const Clock::time_point now = Clock::now();
  if (now - turned_away_ < kTurnAwayLogPause) return;
  turned_away_ = now;
  spdlog::warn("agent: connection closed, {}", reason);
}

void AgentServer::DropOthersOf(const std::string& vm_name, AgentClientId kept) {
  std::vector<AgentClientId> others;
  for (const auto& [id, client] : clients_) {
    if (id != kept && client.registered && client.vm_name == vm_name) others.push_back(id);
  }
  for (const AgentClientId id : others) {
    Violation(id, "its VM has been registered over another connection");
  }
}

void AgentServer::SendCommands() {
  for (VmRegistry::Command& command : registry_.TakeCommands()) {
    const auto found = clients_.find(command.client);
    if (found == clients_.end()) continue;  // OnDisconnected() has told whoever waits
    const int keepsake = command.keepsake.get();
    const std::span<const int> descriptors(&keepsake, command.arm.has_value() ? 1 : 0);
    const wire::AgentMessage message = MessageOf(command);
    if (auto sent = found->second.connection.Send(message, descriptors, kNoWaiting); !sent.ok()) {
      spdlog::warn("agent: client dropped, vm {} pid {}: {}", found->second.vm_name,
                   found->second.process.pid(), sent.error().message);
      Drop(command.client);
    }
  }
}

void AgentServer::ReadClient(AgentClientId id) {
  for (;;) {
    Client& client = clients_.at(id);
    auto received = client.connection.Receive();
    if (!received.ok()) {
      switch (received.error().code) {
        case ErrorCode::kUnsupported: Refuse(id, 0, received.error().message); return;
        case ErrorCode::kProtocol: Violation(id, received.error().message); return;
        default: break;
      }
      if (client.registered) {
        spdlog::info("agent: vm disconnected, name {} pid {}", client.vm_name,
                     client.process.pid());
      }
      Drop(id);
      return;
    }
    if (!received->has_value()) return;
    if (!Handle(id, std::move(**received))) return;
  }
}

bool AgentServer::Handle(AgentClientId id, AgentConnection::Received received) {
  if (std::holds_alternative<wire::RegisterMessage>(received.message)) {
    return HandleRegister(id, std::move(received));
  }
  if (!clients_.at(id).registered) {
    Violation(id, "the first message is not REGISTER");
    return false;
  }
  bool asked_for = false;
  if (const auto* armed = std::get_if<wire::ArmedMessage>(&received.message)) {
    if (absl::Status kind = CheckUserfault(received.descriptors.front()); !kind.ok()) {
      Violation(id, std::string(kind.message()));
      return false;
    }
    asked_for =
        registry_.OnArmed(id, armed->session_id, std::move(received.descriptors.front()));
  } else if (auto* failed = std::get_if<wire::ArmFailedMessage>(&received.message)) {
    asked_for = registry_.OnArmFailed(id, failed->session_id, std::move(failed->text));
  } else if (const auto* released = std::get_if<wire::ReleasedMessage>(&received.message)) {
    asked_for = registry_.OnReleased(id, released->session_id);
  } else if (const auto* fenced = std::get_if<wire::FencedMessage>(&received.message)) {
    asked_for = registry_.OnFenced(id, fenced->session_id);
  } else if (auto* fence = std::get_if<wire::FenceFailedMessage>(&received.message)) {
    asked_for = registry_.OnFenceFailed(id, fence->session_id, std::move(fence->text));
  } else if (const auto* unfenced = std::get_if<wire::UnfencedMessage>(&received.message)) {
    asked_for = registry_.OnUnfenced(id, unfenced->session_id);
  } else if (auto* unfence = std::get_if<wire::UnfenceFailedMessage>(&received.message)) {
    asked_for = registry_.OnUnfenceFailed(id, unfence->session_id, std::move(unfence->text));
  } else if (const auto* error = std::get_if<wire::ErrorMessage>(&received.message)) {
    spdlog::warn("agent: hook closes the connection, vm {} pid {}: {}", clients_.at(id).vm_name,
                 clients_.at(id).process.pid(), error->text);
    Drop(id);
    return false;
  }
  if (!asked_for) Violation(id, "a message that nobody asked for");
  return asked_for;
}

bool AgentServer::HandleRegister(AgentClientId id, AgentConnection::Received received) {
  Client& client = clients_.at(id);
  VmRegistry::Registration registration;
  registration.message = std::get<wire::RegisterMessage>(std::move(received.message));
  const wire::RegisterMessage& message = registration.message;
  if (message.armed_session.has_value()) {
    registration.keepsake = std::move(received.descriptors.back());
    received.descriptors.pop_back();
    registration.userfault = std::move(received.descriptors.back());
    received.descriptors.pop_back();
    if (absl::Status kind = CheckUserfault(registration.userfault); !kind.ok()) {
      Violation(id, std::string(kind.message()));
      return false;
    }
  }
  size_t next_file = 0;
  for (const wire::RegisterBlock& block : message.blocks) {
    if (block.kind != wire::BlockKind::kSharedFile) continue;
    if (auto fits = CheckRamFile(block, received.descriptors[next_file++]); !fits.ok()) {
      Violation(id, std::string(fits.message()));
      return false;
    }
  }
  registration.ram_files = std::move(received.descriptors);
  auto process = client.process.Duplicate();
  if (!process.ok()) {
    Refuse(id, message.snapshot, process.error().message);
    return false;
  }
  registration.process = std::move(*process);
  const uint32_t snapshot = message.snapshot;
  const uint16_t version = message.version;
  const std::string text = absl::StrFormat(
      "name %s pid %d blocks %d armed %s fenced %s%s%s", message.vm_name, client.process.pid(),
      message.blocks.size(), message.armed_session ? message.armed_session->ToString() : "no",
      message.fenced_session ? message.fenced_session->ToString() : "no",
      message.problem.empty() ? "" : " problem ", message.problem);
  client.vm_name = message.vm_name;
  if (absl::Status added = registry_.Register(id, std::move(registration)); !added.ok()) {
    Refuse(id, snapshot, std::string(added.message()));
    return false;
  }
  client.registered = true;
  DropOthersOf(client.vm_name, id);
  spdlog::info("agent: vm registered, {}", text);
  if (version < wire::kFirstVersionWithFence) {
    spdlog::warn("agent: vm {} speaks protocol {}: after a hand-over it cannot be fenced, start its "
                 "QEMU again to get the new hook", client.vm_name, version);
  }
  wire::RegisteredMessage answer;
  answer.version = version;
  answer.snapshot = snapshot;
  answer.accepted = true;
  answer.has_device = device_.valid();
  const int device = device_.get();
  const std::span<const int> descriptors(&device, device_.valid() ? 1 : 0);
  if (auto sent = client.connection.Send(answer, descriptors, kNoWaiting); !sent.ok()) {
    spdlog::warn("agent: client dropped, vm {} pid {}: {}", client.vm_name, client.process.pid(),
                 sent.error().message);
    Drop(id);
    return false;
  }
  return true;
}

void AgentServer::Refuse(AgentClientId id, uint32_t snapshot, const std::string& reason) {
  Client& client = clients_.at(id);
  spdlog::warn("agent: vm refused, name {} pid {}: {}", client.vm_name, client.process.pid(),
               reason);
  wire::RegisteredMessage answer;
  answer.snapshot = snapshot;
  answer.refusal = wire::CutText(reason, wire::kMaxAgentTextBytes);
  (void)client.connection.Send(answer, {}, kNoWaiting);
  Drop(id);
}

void AgentServer::Violation(AgentClientId id, const std::string& reason) {
  Client& client = clients_.at(id);
  spdlog::warn("agent: client dropped for a violation, vm {} pid {}: {}", client.vm_name,
               client.process.pid(), reason);
  (void)client.connection.Send(
      wire::ErrorMessage{wire::CutText(reason, wire::kMaxAgentTextBytes)}, {}, kNoWaiting);
  Drop(id);
}

void AgentServer::Drop(AgentClientId id) {
  registry_.OnDisconnected(id);
  clients_.erase(id);
}

void AgentServer::DropSilentClients() {
  const Clock::time_point now = Clock::now();
  std::vector<AgentClientId> silent;
  for (const auto& [id, client] : clients_) {
    if (!client.registered && now - client.connected_at >= kRegisterTimeout) silent.push_back(id);
  }
  for (const AgentClientId id : silent) Violation(id, "no REGISTER within 10 seconds");
}

void AgentServer::RemoveEndedVms() {
  if (!process_ended_) return;
  for (const std::string& name : registry_.RemoveEnded()) {
    spdlog::info("agent: vm gone, its process has ended, name {}", name);
  }
}

}  // namespace postcopy
