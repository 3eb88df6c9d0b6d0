#include "wire/agent_protocol.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/printable_text.h"
#include "core/units.h"

namespace postcopy::wire {
namespace {

// Of a REGISTER and of its blocks. One session at a time: not both.
constexpr uint16_t kFlagArmed = 1;
constexpr uint16_t kFlagFenced = 2;

bool IsSpoken(uint16_t version) {
  return version >= kOldestAgentProtocolVersion && version <= kAgentProtocolVersion;
}

Error Invalid(std::string cause) { return {ErrorCode::kInvalidArgument, std::move(cause)}; }

AgentFrameType TypeOf(const AgentMessage& message) {
  return static_cast<AgentFrameType>(message.index() + 1);
}

const char* NameOf(AgentFrameType type) {
  switch (type) {
    case AgentFrameType::kRegister: return "REGISTER";
    case AgentFrameType::kRegistered: return "REGISTERED";
    case AgentFrameType::kArm: return "ARM";
    case AgentFrameType::kArmed: return "ARMED";
    case AgentFrameType::kArmFailed: return "ARM_FAILED";
    case AgentFrameType::kRelease: return "RELEASE";
    case AgentFrameType::kReleased: return "RELEASED";
    case AgentFrameType::kError: return "ERROR";
    case AgentFrameType::kFence: return "FENCE";
    case AgentFrameType::kFenced: return "FENCED";
    case AgentFrameType::kFenceFailed: return "FENCE_FAILED";
    case AgentFrameType::kUnfence: return "UNFENCE";
    case AgentFrameType::kUnfenced: return "UNFENCED";
    case AgentFrameType::kUnfenceFailed: return "UNFENCE_FAILED";
  }
  return "unknown";
}

// --- what is allowed -----------------------------------------------------------------------------

Result<void> CheckText(const std::string& text, size_t limit_bytes, const char* field) {
  if (text.size() > limit_bytes) {
    return Invalid(std::string(field) + " has " + std::to_string(text.size()) +
                   " bytes, at most " + std::to_string(limit_bytes) + " are possible");
  }
  if (text.find('\0') != std::string::npos) return Invalid(std::string(field) + " contains a NUL");
  return {};
}

Result<void> CheckVmName(const std::string& name) {
  if (name.empty()) return Invalid("VM name is empty");
  if (auto text = CheckText(name, kMaxVmNameBytes, "VM name"); !text.ok()) return text;
  const bool plain = std::all_of(name.begin(), name.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 && byte < 0x7f && byte != '/';
  });
  if (!plain || name == "." || name == "..") {
    return Invalid("VM name is not printable ASCII without a slash, or is . or ..");
  }
  // It stands in command lines and tables: no option, and none that looks like another name.
  if (name.front() == '-' || name.front() == ' ' || name.back() == ' ') {
    return Invalid("VM name begins with - or a space, or ends with a space");
  }
  return {};
}

Result<void> CheckBlock(const RegisterBlock& block, const RegisterMessage& message) {
  if (auto text = CheckText(block.name, kMaxRegionNameBytes, "block name"); !text.ok()) return text;
  if (auto text = CheckText(block.path, kMaxBlockPathBytes, "block path"); !text.ok()) return text;
  if (block.kind != BlockKind::kSharedFile && block.kind != BlockKind::kAnonymous) {
    return Invalid("block of unknown kind");
  }
  if (block.size_bytes == 0 || block.size_bytes > kMaxRegionBytes) {
    return Invalid("block of " + std::to_string(block.size_bytes) + " bytes");
  }
  if ((block.address | block.size_bytes | block.file_offset) % kPageBytes != 0) {
    return Invalid("block address, size or file offset is not a multiple of the page size");
  }
  if (block.address > UINT64_MAX - block.size_bytes ||
      block.file_offset > static_cast<uint64_t>(INT64_MAX) - block.size_bytes) {
    return Invalid("block reaches beyond the end of the address space or of any file");
  }
  if (block.kind == BlockKind::kAnonymous && (block.file_offset != 0 || !block.path.empty())) {
    return Invalid("anonymous block with a file");
  }
  if (block.armed && !message.armed_session.has_value()) {
    return Invalid("armed block without a session");
  }
  if (block.fenced && !message.fenced_session.has_value()) {
    return Invalid("fenced block without a session");
  }
  return {};
}

Result<void> CheckSession(const SessionId& id) {
  if (id == SessionId{}) return Invalid("session id is zero");
  return {};
}

Result<void> CheckFailure(const std::string& text, const char* field) {
  if (text.empty()) return Invalid(std::string(field) + " is empty");
  return CheckText(text, kMaxAgentTextBytes, field);
}

Result<void> CheckFenced(const RegisterMessage& message) {
  if (message.version < kFirstVersionWithFence) return Invalid("fenced in a version that knows no fence");
  if (message.armed_session.has_value()) return Invalid("both armed and fenced");
  if (std::none_of(message.blocks.begin(), message.blocks.end(),
                   [](const RegisterBlock& block) { return block.fenced; })) {
    return Invalid("fenced without a fenced block");
  }
  return CheckSession(*message.fenced_session);
}

Result<void> Check(const RegisterMessage& message) {
  if (auto name = CheckVmName(message.vm_name); !name.ok()) return name;
  if (auto text = CheckText(message.qmp_path, kMaxQmpPathBytes, "QMP path"); !text.ok()) return text;
  if (!message.qmp_path.empty() && message.qmp_path[0] != '/') {
    return Invalid("QMP path is not absolute");
  }
  // It is connected to and shown, so it can't be made printable.
  if (!IsPrintable(message.qmp_path)) return Invalid("QMP path is not printable UTF-8");
  if (auto text = CheckText(message.problem, kMaxAgentTextBytes, "problem"); !text.ok()) return text;
  if (message.blocks.size() > kMaxAgentBlocks) {
    return Invalid(std::to_string(message.blocks.size()) + " blocks, at most " +
                   std::to_string(kMaxAgentBlocks) + " are possible");
  }
  if (message.blocks.empty() && message.problem.empty()) return Invalid("neither block nor problem");
  for (const RegisterBlock& block : message.blocks) {
    if (auto ok = CheckBlock(block, message); !ok.ok()) return ok;
  }
  if (!IsSpoken(message.version)) {
    return Invalid("protocol version " + std::to_string(message.version));
  }
  if (message.fenced_session.has_value()) return CheckFenced(message);
  if (message.armed_session.has_value()) {
    if (std::none_of(message.blocks.begin(), message.blocks.end(),
                     [](const RegisterBlock& block) { return block.armed; })) {
      return Invalid("armed without an armed block");
    }
    return CheckSession(*message.armed_session);
  }
  return {};
}

Result<void> Check(const RegisteredMessage& message) {
  if (message.accepted && !message.refusal.empty()) return Invalid("accepted with a refusal");
  if (message.accepted && !IsSpoken(message.version)) {
    return Invalid("accepted in protocol version " + std::to_string(message.version));
  }
  return message.accepted ? Result<void>() : CheckFailure(message.refusal, "refusal");
}

Result<void> CheckPositions(const std::vector<uint16_t>& blocks) {
  if (blocks.empty() || blocks.size() > kMaxAgentBlocks) {
    return Invalid(std::to_string(blocks.size()) + " blocks");
  }
  std::vector<uint16_t> sorted = blocks;
  std::sort(sorted.begin(), sorted.end());
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    return Invalid("a block is named twice");
  }
  return {};
}

Result<void> Check(const ErrorMessage& message) { return CheckFailure(message.text, "error"); }

// Of a message that names a session: what else it holds is checked first.
template <typename Message>
Result<void> Check(const Message& message) {
  Result<void> rest;
  if constexpr (requires { message.blocks; }) rest = CheckPositions(message.blocks);
  if constexpr (requires { message.text; }) rest = CheckFailure(message.text, "failure");
  return rest.ok() ? CheckSession(message.session_id) : rest;
}

// --- message to bytes ----------------------------------------------------------------------------

void Write(ByteWriter& out, const SessionId& id) { out.Bytes(id.bytes); }

uint16_t Flags(bool armed, bool fenced) {
  return static_cast<uint16_t>((armed ? kFlagArmed : 0) | (fenced ? kFlagFenced : 0));
}

void Write(ByteWriter& out, const RegisterMessage& message) {
  out.U16(message.version);
  out.U16(Flags(message.armed_session.has_value(), message.fenced_session.has_value()));
  out.U32(message.snapshot);
  out.U16(static_cast<uint16_t>(message.blocks.size()));
  out.U16(0);
  Write(out, message.fenced_session.value_or(message.armed_session.value_or(SessionId{})));
  out.Text(message.vm_name);
  out.Text(message.qmp_path);
  out.Text(message.problem);
  for (const RegisterBlock& block : message.blocks) {
    out.U64(block.address);
    out.U64(block.size_bytes);
    out.U64(block.file_offset);
    out.U8(static_cast<uint8_t>(block.kind));
    out.U8(static_cast<uint8_t>(Flags(block.armed, block.fenced)));
    out.Text(block.name);
    out.Text(block.path);
  }
}

void Write(ByteWriter& out, const RegisteredMessage& message) {
  out.U16(message.version);
  out.U8(message.accepted ? 1 : 0);
  out.U8(0);
  out.U32(message.snapshot);
  out.Text(message.refusal);
}

void Write(ByteWriter& out, const ErrorMessage& message) { out.Text(message.text); }

// Of a message that names a session: what else it holds follows.
template <typename Message>
void Write(ByteWriter& out, const Message& message) {
  Write(out, message.session_id);
  if constexpr (requires { message.blocks; }) {
    out.U32(message.snapshot);
    out.U16(static_cast<uint16_t>(message.blocks.size()));
    for (const uint16_t block : message.blocks) out.U16(block);
  } else if constexpr (requires { message.text; }) {
    out.Text(message.text);
  }
}

// --- bytes to message ----------------------------------------------------------------------------
// Each reader leaves the check of "too short, too long" to its caller, and says false where a field
// holds what Check() would not see.

SessionId ReadSession(ByteReader& in) {
  SessionId id;
  const auto raw = in.Bytes(id.bytes.size());
  std::copy(raw.begin(), raw.end(), id.bytes.begin());
  return id;
}

// Text for people, made printable; a NUL stays, for Check() to refuse.
std::string ReadText(ByteReader& in, size_t limit_bytes) {
  std::string text = in.Text(limit_bytes);
  if (text.find('\0') != std::string::npos) return text;
  return CutText(PrintableText(text), limit_bytes);
}

bool Read(ByteReader& in, RegisterMessage& message) {
  message.version = in.U16();
  const uint16_t flags = in.U16();
  message.snapshot = in.U32();
  const uint16_t count_blocks = in.U16();
  const uint16_t reserved = in.U16();
  const SessionId session = ReadSession(in);
  if (flags > kFlagFenced || reserved != 0 || count_blocks > kMaxAgentBlocks) return false;
  if (flags == kFlagArmed) message.armed_session = session;
  if (flags == kFlagFenced) message.fenced_session = session;
  if (flags == 0 && session != SessionId{}) return false;
  message.vm_name = in.Text(kMaxVmNameBytes);
  message.qmp_path = in.Text(kMaxQmpPathBytes);
  message.problem = ReadText(in, kMaxAgentTextBytes);
  for (uint16_t i = 0; i < count_blocks && in.ok(); ++i) {
    RegisterBlock& block = message.blocks.emplace_back();
    block.address = in.U64();
    block.size_bytes = in.U64();
    block.file_offset = in.U64();
    block.kind = static_cast<BlockKind>(in.U8());
    const uint8_t block_flags = in.U8();
    if (block_flags > kFlagFenced) return false;
    block.armed = block_flags == kFlagArmed;
    block.fenced = block_flags == kFlagFenced;
    block.name = ReadText(in, kMaxRegionNameBytes);
    block.path = ReadText(in, kMaxBlockPathBytes);
  }
  return true;
}

bool Read(ByteReader& in, RegisteredMessage& message) {
  message.version = in.U16();
  const uint8_t accepted = in.U8();
  const uint8_t reserved = in.U8();
  message.accepted = accepted == 1;
  message.snapshot = in.U32();
  message.refusal = ReadText(in, kMaxAgentTextBytes);
  return accepted <= 1 && reserved == 0;
}

bool Read(ByteReader& in, ErrorMessage& message) {
  message.text = ReadText(in, kMaxAgentTextBytes);
  return true;
}

template <typename Message>
bool Read(ByteReader& in, Message& message) {
  message.session_id = ReadSession(in);
  if constexpr (requires { message.blocks; }) {
    message.snapshot = in.U32();
    const uint16_t count = in.U16();
    if (count > kMaxAgentBlocks) return false;
    for (uint16_t i = 0; i < count && in.ok(); ++i) message.blocks.push_back(in.U16());
  } else if constexpr (requires { message.text; }) {
    message.text = ReadText(in, kMaxAgentTextBytes);
  }
  return true;
}

Error Malformed(AgentFrameType type, const std::string& cause) {
  return {ErrorCode::kProtocol, std::string("agent frame ") + NameOf(type) + ": " + cause};
}

template <typename Message>
Result<AgentMessage> Decode(const Frame& frame) {
  const auto type = static_cast<AgentFrameType>(frame.header.type);
  Message message;
  ByteReader in(frame.body);
  if (!Read(in, message) || !in.finished()) {
    return Malformed(type, "a field is out of bounds, or the body's length does not match");
  }
  if constexpr (std::is_same_v<Message, RegisteredMessage>) {
    if (frame.header.aux > 1 || (frame.header.aux == 1 && !message.accepted)) {
      return Malformed(type, "unexpected descriptors");
    }
    message.has_device = frame.header.aux == 1;
  }
  AgentMessage decoded = std::move(message);
  if (auto valid = Validate(decoded); !valid.ok()) return Malformed(type, valid.error().message);
  if (frame.header.aux != CountDescriptors(decoded)) {
    return Malformed(type, std::to_string(frame.header.aux) + " descriptors announced, " +
                               std::to_string(CountDescriptors(decoded)) + " belong to it");
  }
  return decoded;
}

}  // namespace

size_t CountDescriptors(const AgentMessage& message) {
  if (const auto* registered = std::get_if<RegisteredMessage>(&message)) {
    return registered->has_device ? 1 : 0;
  }
  if (std::get_if<ArmMessage>(&message) || std::get_if<ArmedMessage>(&message)) return 1;
  const auto* offer = std::get_if<RegisterMessage>(&message);
  if (offer == nullptr) return 0;
  const auto shared =
      std::count_if(offer->blocks.begin(), offer->blocks.end(),
                    [](const auto& block) { return block.kind == BlockKind::kSharedFile; });
  return static_cast<size_t>(shared) + (offer->armed_session.has_value() ? 2 : 0);
}

Result<void> Validate(const AgentMessage& message) {
  return std::visit([](const auto& m) { return Check(m); }, message);
}

std::vector<std::byte> Encode(const AgentMessage& message) {
  std::vector<std::byte> frame(kFrameHeaderBytes);
  ByteWriter out(frame);
  std::visit([&](const auto& m) { Write(out, m); }, message);
  FrameHeader header;
  header.type = static_cast<uint8_t>(TypeOf(message));
  header.aux = static_cast<uint16_t>(CountDescriptors(message));
  header.length = static_cast<uint32_t>(frame.size() - kFrameHeaderBytes);
  EncodeFrameHeader(header, frame.data());
  return frame;
}

Result<AgentMessage> DecodeAgentFrame(const Frame& frame) {
  const auto type = static_cast<AgentFrameType>(frame.header.type);
  if (frame.header.encoding != 0) return Malformed(type, "encoding is not 0");
  switch (type) {
    case AgentFrameType::kRegister: {
      ByteReader in(frame.body);
      const uint16_t version = in.U16();
      if (in.ok() && !IsSpoken(version)) {
        return Error{ErrorCode::kUnsupported,
                     "agent protocol version " + std::to_string(version) +
                         " is not spoken here, " + std::to_string(kOldestAgentProtocolVersion) +
                         " to " + std::to_string(kAgentProtocolVersion) +
                         " are: libpostcopy of the VMM and the daemon do not fit"};
      }
      return Decode<RegisterMessage>(frame);
    }
    case AgentFrameType::kRegistered: return Decode<RegisteredMessage>(frame);
    case AgentFrameType::kArm: return Decode<ArmMessage>(frame);
    case AgentFrameType::kArmed: return Decode<ArmedMessage>(frame);
    case AgentFrameType::kArmFailed: return Decode<ArmFailedMessage>(frame);
    case AgentFrameType::kRelease: return Decode<ReleaseMessage>(frame);
    case AgentFrameType::kReleased: return Decode<ReleasedMessage>(frame);
    case AgentFrameType::kError: return Decode<ErrorMessage>(frame);
    case AgentFrameType::kFence: return Decode<FenceMessage>(frame);
    case AgentFrameType::kFenced: return Decode<FencedMessage>(frame);
    case AgentFrameType::kFenceFailed: return Decode<FenceFailedMessage>(frame);
    case AgentFrameType::kUnfence: return Decode<UnfenceMessage>(frame);
    case AgentFrameType::kUnfenced: return Decode<UnfencedMessage>(frame);
    case AgentFrameType::kUnfenceFailed: return Decode<UnfenceFailedMessage>(frame);
  }
  return Error{ErrorCode::kProtocol,
               "agent frame of unknown type " + std::to_string(frame.header.type)};
}

std::string CutText(std::string text, size_t limit_bytes) {
  if (text.size() <= limit_bytes) return text;
  size_t end = limit_bytes;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) --end;
  text.resize(end);
  return text;
}

}  // namespace postcopy::wire
