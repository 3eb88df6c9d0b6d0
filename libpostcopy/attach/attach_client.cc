#include "attach/attach_client.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "attach/arming.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kSendTimeout{10'000};
constexpr milliseconds kRegisterTimeout{10'000};
constexpr milliseconds kForEver{-1};
constexpr milliseconds kFirstLook{1'000};
constexpr milliseconds kLongestLook{60'000};

bool Contains(const std::vector<uint64_t>& ids, uint64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

std::vector<uint64_t> IdsOf(const std::vector<BlockTable::Block>& blocks) {
  std::vector<uint64_t> ids;
  for (const BlockTable::Block& block : blocks) ids.push_back(block.id);
  return ids;
}

// What an answer of failure says.
std::string FailureText(const Error& error) {
  return wire::CutText(error.message, wire::kMaxAgentTextBytes);
}

}  // namespace

Result<std::unique_ptr<AttachClient>> AttachClient::Start(AttachOptions options,
                                                          BlockTable& blocks) {
  wire::RegisterMessage probe;
  probe.vm_name = options.vm_name;
  probe.qmp_path = options.qmp_path;
  probe.problem = "probe";
  if (auto valid = wire::Validate(probe); !valid.ok()) return valid.error();
  auto waiter = Waiter::Create();
  if (!waiter.ok()) return waiter.error();
  // Opened now: a VMM that changes its user later may not open its own page table then.
  std::unique_ptr<AttachClient> client(new AttachClient(
      std::move(options), blocks, std::move(*waiter), PageTableView::Open()));
  auto thread = QuietThread::Start("postcopy", [self = client.get()] { self->Run(); });
  if (!thread.ok()) return thread.error();
  client->thread_.emplace(std::move(*thread));
  return client;
}

AttachClient::AttachClient(AttachOptions options, BlockTable& blocks, Waiter waiter,
                           Result<PageTableView> page_table)
    : options_(std::move(options)),
      blocks_(blocks),
      waiter_(std::move(waiter)),
      page_table_(std::move(page_table)) {}

AttachClient::~AttachClient() {
  if (!thread_.has_value()) return;
  stopping_.store(true, std::memory_order_relaxed);
  waiter_.WakeUp();
  thread_->Join();
}

void AttachClient::Run() {
  try {
    while (!blocks_.HasSomething() && !stopping_.load(std::memory_order_relaxed)) {
      waiter_.Wait(-1, kForEver);
    }
    while (auto connection = Connect()) {
      switch (Converse(*connection)) {
        case Ending::kStopping: return;
        case Ending::kLost: Pause(options_.first_pause); break;
        case Ending::kRejected: Pause(options_.rejected_pause); break;
      }
    }
  } catch (const std::exception& error) {
    // Out of memory. This is somebody else's process: give up, say so, keep what is armed.
    if (options_.notice) options_.notice(std::string("stops talking to the daemon: ") + error.what());
  }
}

std::optional<AgentConnection> AttachClient::Connect() {
  milliseconds pause = options_.first_pause;
  while (!stopping_.load(std::memory_order_relaxed)) {
    auto channel = UnixChannel::Connect(options_.agent_path);
    if (channel.ok()) return AgentConnection(std::move(*channel));
    SayMissing("no daemon yet (" + channel.error().message + "); the VM runs, trying on");
    Pause(pause);
    pause = std::min(pause * 2, options_.longest_pause);
  }
  return std::nullopt;
}

void AttachClient::Pause(milliseconds pause) {
  if (!stopping_.load(std::memory_order_relaxed)) waiter_.Wait(-1, pause);
}

AttachClient::Ending AttachClient::Converse(AgentConnection& connection) {
  count_awaited_ = 0;
  bool to_register = true;
  cut_off_.clear();  // it has just been reached
  look_again_ = kFirstLook;
  while (!stopping_.load(std::memory_order_relaxed)) {
    if (to_register || blocks_.CountChanges() != sent_.changes) {
      to_register = false;
      if (auto sent = SendRegister(connection); !sent.ok()) {
        const bool ours = sent.error().code == ErrorCode::kInvalidArgument;
        Say("register: " + sent.error().message);
        return ours ? Ending::kRejected : Ending::kLost;
      }
    }
    if (auto ending = TakeMessages(connection)) return *ending;
    const auto woken =
        waiter_.Wait(connection.fd(), count_awaited_ > 0 ? kRegisterTimeout : look_again_);
    if (woken != Waiter::Woken::kTimeout) continue;
    if (count_awaited_ > 0) {
      Say("the daemon does not answer a registration; connecting again");
      return Ending::kRejected;
    }
    look_again_ = std::min(look_again_ * 2, kLongestLook);
    to_register = CutOffHasChanged();
  }
  return Ending::kStopping;
}

std::string AttachClient::WhyCutOff() const {
  const auto reachable = UnixChannel::CheckAccess(options_.agent_path);
  if (reachable.ok()) return "";
  const ErrorCode code = reachable.error().code;
  if (code != ErrorCode::kNotFound && code != ErrorCode::kPermission) return "";
  return "this VMM could not come back to a daemon that is started again (" + reachable.error().message +
         "), as where QEMU is confined by -chroot or -runas: make the socket reachable there";
}

bool AttachClient::CutOffHasChanged() {
  const std::string now = WhyCutOff();
  if (now == cut_off_) return false;
  if (!now.empty()) Say(now);
  cut_off_ = now;
  return true;
}

Result<void> AttachClient::SendRegister(AgentConnection& connection) {
  sent_ = blocks_.Collect();
  wire::RegisterMessage message;
  message.snapshot = ++count_registers_;
  message.vm_name = options_.vm_name;
  message.qmp_path = options_.qmp_path;
  message.problem = sent_.problem.empty()
                        ? wire::CutText(cut_off_, wire::kMaxAgentTextBytes)
                        : sent_.problem;
  std::vector<int> descriptors;
  bool any_armed = false;
  if (fenced_.has_value()) fenced_->fence.Forget(sent_.blocks);
  for (const BlockTable::Block& found : sent_.blocks) {
    wire::RegisterBlock& block = message.blocks.emplace_back(found.block);
    block.armed = armed_.has_value() && Contains(armed_->block_ids, found.id);
    block.fenced = fenced_.has_value() && fenced_->fence.Has(found.id);
    any_armed = any_armed || block.armed;
    if (block.kind == wire::BlockKind::kSharedFile) descriptors.push_back(found.ram_file);
  }
  // The VMM has unmapped all of them.
  if (armed_.has_value() && !any_armed) armed_.reset();
  if (fenced_.has_value() && fenced_->fence.IsEmpty()) fenced_.reset();
  if (fenced_.has_value()) message.fenced_session = fenced_->session_id;
  if (armed_.has_value()) {
    message.armed_session = armed_->session_id;
    descriptors.push_back(armed_->userfault.get());
    descriptors.push_back(armed_->keepsake.get());
  }
  if (message.blocks.empty() && message.problem.empty()) message.problem = "no guest RAM is mapped";
  ++count_awaited_;
  return connection.Send(message, descriptors, kSendTimeout);
}

std::optional<AttachClient::Ending> AttachClient::TakeMessages(AgentConnection& connection) {
  for (;;) {
    auto received = connection.Receive();
    if (!received.ok()) {
      const bool lost = received.error().code != ErrorCode::kProtocol &&
                        received.error().code != ErrorCode::kUnsupported;
      SayMissing("lost the daemon (" + received.error().message + "); the VM runs, trying on");
      return lost ? Ending::kLost : Ending::kRejected;
    }
    if (!received->has_value()) return std::nullopt;
    if (auto ending = Handle(connection, std::move(**received))) return ending;
  }
}

std::optional<AttachClient::Ending> AttachClient::Handle(AgentConnection& connection,
                                                         AgentConnection::Received received) {
  const auto* registered = std::get_if<wire::RegisteredMessage>(&received.message);
  if (registered != nullptr) return OnRegistered(*registered, std::move(received.descriptors));
  if (const auto* error = std::get_if<wire::ErrorMessage>(&received.message)) {
    Say("the daemon closes the connection: " + error->text);
    return Ending::kRejected;
  }
  Result<void> answered;
  if (const auto* arm = std::get_if<wire::ArmMessage>(&received.message)) {
    answered = OnArm(connection, *arm, std::move(received.descriptors.front()));
  } else if (const auto* release = std::get_if<wire::ReleaseMessage>(&received.message)) {
    answered = OnRelease(connection, *release);
  } else if (const auto* fence = std::get_if<wire::FenceMessage>(&received.message)) {
    answered = OnFence(connection, *fence);
  } else if (const auto* unfence = std::get_if<wire::UnfenceMessage>(&received.message)) {
    answered = OnUnfence(connection, *unfence);
  } else {
    Say("the daemon sent a message that only a VMM sends; connecting again");
    return Ending::kRejected;
  }
  if (answered.ok()) return std::nullopt;
  Say("answer the daemon: " + answered.error().message);
  return Ending::kLost;
}

std::optional<AttachClient::Ending> AttachClient::OnRegistered(
    const wire::RegisteredMessage& message, std::vector<UniqueFd> descriptors) {
  if (!message.accepted) {
    Say("the daemon refuses this VM: " + message.refusal);
    return Ending::kRejected;
  }
  if (count_awaited_ == 0) {
    Say("the daemon sent an answer that nobody asked for; connecting again");
    return Ending::kRejected;
  }
  --count_awaited_;
  if (!descriptors.empty()) device_ = std::move(descriptors.front());
  missing_ = false;
  Say("VM " + options_.vm_name + " is registered with the daemon at " + options_.agent_path);
  return std::nullopt;
}

Result<void> AttachClient::OnArm(AgentConnection& connection, const wire::ArmMessage& message,
                                 UniqueFd keepsake) {
  if (auto armed = Arm(message, std::move(keepsake)); !armed.ok()) {
    return connection.Send(
        wire::ArmFailedMessage{message.session_id, FailureText(armed.error())}, {}, kSendTimeout);
  }
  const int userfault = armed_->userfault.get();
  return connection.Send(wire::ArmedMessage{message.session_id}, {&userfault, 1}, kSendTimeout);
}

Result<void> AttachClient::Arm(const wire::ArmMessage& message, UniqueFd keepsake) {
  if (armed_.has_value()) {
    return Error{ErrorCode::kMismatch,
                 "armed already, for session " + armed_->session_id.ToString()};
  }
  if (fenced_.has_value()) {
    return Error{ErrorCode::kMismatch, "fenced, for session " + fenced_->session_id.ToString()};
  }
  auto blocks = BlocksAt(message.snapshot, message.blocks);
  if (!blocks.ok()) return blocks.error();
  // Armed, it would wait for ever for its memory once the daemon has been killed.
  if (const std::string cut_off = WhyCutOff(); !cut_off.empty()) {
    return Error{ErrorCode::kPermission, cut_off};
  }
  if (!page_table_.ok()) return page_table_.error();
  auto userfault = ArmBlocks(device_.get(), *blocks, *page_table_);
  if (!userfault.ok()) {
    AllowHugePagesAgain(*blocks);
    return userfault.error();
  }
  armed_.emplace(Armed{message.session_id, std::move(*userfault), std::move(keepsake),
                       IdsOf(*blocks)});
  return {};
}

Result<std::vector<BlockTable::Block>> AttachClient::BlocksAt(
    uint32_t snapshot, const std::vector<uint16_t>& positions) const {
  if (snapshot != count_registers_ || blocks_.CountChanges() != sent_.changes) {
    return Error{ErrorCode::kMismatch, "the VM's RAM blocks have changed meanwhile"};
  }
  std::vector<BlockTable::Block> blocks;
  for (const uint16_t position : positions) {
    if (position >= sent_.blocks.size()) {
      return Error{ErrorCode::kMismatch, "there is no RAM block " + std::to_string(position)};
    }
    blocks.push_back(sent_.blocks[position]);
  }
  return blocks;
}

Result<void> AttachClient::OnRelease(AgentConnection& connection,
                                     const wire::ReleaseMessage& message) {
  if (armed_.has_value() && armed_->session_id == message.session_id) {
    const std::vector<BlockTable::Block> blocks = BlocksOf(armed_->block_ids);
    armed_.reset();
    AllowHugePagesAgain(blocks);
  }
  return connection.Send(wire::ReleasedMessage{message.session_id}, {}, kSendTimeout);
}

Result<void> AttachClient::OnFence(AgentConnection& connection,
                                   const wire::FenceMessage& message) {
  if (auto fenced = Fence(message); !fenced.ok()) {
    return connection.Send(
        wire::FenceFailedMessage{message.session_id, FailureText(fenced.error())}, {},
        kSendTimeout);
  }
  return connection.Send(wire::FencedMessage{message.session_id}, {}, kSendTimeout);
}

Result<void> AttachClient::Fence(const wire::FenceMessage& message) {
  if (armed_.has_value()) {
    return Error{ErrorCode::kMismatch, "armed, for session " + armed_->session_id.ToString()};
  }
  if (fenced_.has_value()) {
    return Error{ErrorCode::kMismatch,
                 "fenced already, for session " + fenced_->session_id.ToString()};
  }
  auto blocks = BlocksAt(message.snapshot, message.blocks);
  if (!blocks.ok()) return blocks.error();
  auto fence = Fence::Lay(*blocks);
  if (!fence.ok()) return fence.error();
  fenced_.emplace(Fenced{message.session_id, std::move(*fence)});
  Say("guest RAM is fenced: another host owns this VM; a guest that is started here ends by SIGSEGV");
  return {};
}

Result<void> AttachClient::OnUnfence(AgentConnection& connection,
                                     const wire::UnfenceMessage& message) {
  if (fenced_.has_value() && fenced_->session_id == message.session_id) {
    if (auto lifted = fenced_->fence.Lift(blocks_.Collect().blocks); !lifted.ok()) {
      return connection.Send(
          wire::UnfenceFailedMessage{message.session_id, FailureText(lifted.error())}, {},
          kSendTimeout);
    }
    fenced_.reset();
    Say("guest RAM is no longer fenced: this host runs the VM");
  }
  return connection.Send(wire::UnfencedMessage{message.session_id}, {}, kSendTimeout);
}

std::vector<BlockTable::Block> AttachClient::BlocksOf(const std::vector<uint64_t>& ids) const {
  std::vector<BlockTable::Block> blocks;
  for (const BlockTable::Block& block : blocks_.Collect().blocks) {
    if (Contains(ids, block.id)) blocks.push_back(block);
  }
  return blocks;
}

void AttachClient::SayMissing(const std::string& text) {
  if (!missing_) Say(text);
  missing_ = true;
}

void AttachClient::Say(const std::string& text) {
  if (text == last_said_) return;
  last_said_ = text;
  if (options_.notice) options_.notice(text);
}

}  // namespace postcopy
