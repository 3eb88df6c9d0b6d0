// The agent protocol, VMM ⇄ its host's daemon: messages to frames and back (docs/agent-protocol.md).
//
// Pure: no socket, no descriptor. Descriptors travel beside a frame; CountDescriptors() says how
// many, and decoding checks that number against the frame's `aux`. Every length is checked against
// a limit below before anything is allocated for it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "core/memory_layout.h"
#include "core/result.h"
#include "core/session_id.h"
#include "wire/frame.h"

namespace postcopy::wire {

inline constexpr uint16_t kAgentProtocolVersion = 3;
// The oldest version whose hooks a daemon accepts.
inline constexpr uint16_t kOldestAgentProtocolVersion = 2;
// From this one on a hook knows FENCE and UNFENCE.
inline constexpr uint16_t kFirstVersionWithFence = 3;

inline constexpr size_t kMaxAgentBlocks = kMaxRegions;
inline constexpr size_t kMaxVmNameBytes = 128;
inline constexpr size_t kMaxQmpPathBytes = 107;  // what a Unix socket address holds
inline constexpr size_t kMaxBlockPathBytes = 4095;
inline constexpr size_t kMaxAgentTextBytes = 1023;  // a problem, a refusal, a failure
// Largest body: a REGISTER with every list and text at its limit fits.
inline constexpr size_t kMaxAgentBodyBytes = 288 * 1024;
// The RAM files of all blocks, one userfaultfd and one keepsake.
inline constexpr size_t kMaxAgentDescriptors = kMaxAgentBlocks + 2;

enum class AgentFrameType : uint8_t {
  kRegister = 1,
  kRegistered = 2,
  kArm = 3,
  kArmed = 4,
  kArmFailed = 5,
  kRelease = 6,
  kReleased = 7,
  kError = 8,
  kFence = 9,
  kFenced = 10,
  kFenceFailed = 11,
  kUnfence = 12,
  kUnfenced = 13,
  kUnfenceFailed = 14,
};

enum class BlockKind : uint8_t {
  kSharedFile = 1,  // MAP_SHARED of a RAM file, whose descriptor travels with the message
  kAnonymous = 2,   // private anonymous memory
};

struct RegisterBlock {
  uint64_t address = 0;  // in the VMM's address space, page-aligned
  uint64_t size_bytes = 0;
  uint64_t file_offset = 0;  // kSharedFile only
  BlockKind kind = BlockKind::kAnonymous;
  bool armed = false;  // only where RegisterMessage::armed_session is set
  std::string name;    // may be empty
  std::string path;    // kSharedFile only
  bool fenced = false;  // only where RegisterMessage::fenced_session is set

  friend bool operator==(const RegisterBlock&, const RegisterBlock&) = default;
};

// VMM → daemon: everything the hook knows, whenever that changes or the daemon comes back.
// Descriptors: the RAM file of each shared block in their order, then, if armed, the userfaultfd
// and the keepsake.
struct RegisterMessage {
  uint32_t snapshot = 0;  // counts the REGISTERs of this process
  std::string vm_name;
  std::string qmp_path;  // empty: none told
  std::string problem;   // not empty: why RAM can't be relocated
  std::optional<SessionId> armed_session;
  std::vector<RegisterBlock> blocks;
  std::optional<SessionId> fenced_session;  // not beside armed_session; from version 3 on
  uint16_t version = kAgentProtocolVersion;

  friend bool operator==(const RegisterMessage&, const RegisterMessage&) = default;
};

// Daemon → VMM: the answer to each REGISTER. Descriptor: /dev/userfaultfd, if `has_device`.
struct RegisteredMessage {
  uint16_t version = kAgentProtocolVersion;  // the daemon's; differs only in a refusal
  uint32_t snapshot = 0;                     // of the REGISTER answered
  bool accepted = false;
  bool has_device = false;  // travels as the frame's aux
  std::string refusal;      // not empty exactly if not accepted

  friend bool operator==(const RegisteredMessage&, const RegisteredMessage&) = default;
};

// Daemon → VMM: empty these blocks and register them with a userfaultfd. Descriptor: the keepsake,
// which the VMM keeps and gives back.
struct ArmMessage {
  SessionId session_id;
  uint32_t snapshot = 0;         // whose blocks are numbered
  std::vector<uint16_t> blocks;  // 1 to 64 positions in RegisterMessage::blocks, each once

  friend bool operator==(const ArmMessage&, const ArmMessage&) = default;
};

// VMM → daemon. Descriptor: the userfaultfd.
struct ArmedMessage {
  SessionId session_id;
  friend bool operator==(const ArmedMessage&, const ArmedMessage&) = default;
};

// VMM → daemon: nothing is armed for this session.
struct ArmFailedMessage {
  SessionId session_id;
  std::string text;
  friend bool operator==(const ArmFailedMessage&, const ArmFailedMessage&) = default;
};

// Daemon → VMM: close the duplicate of the userfaultfd.
struct ReleaseMessage {
  SessionId session_id;
  friend bool operator==(const ReleaseMessage&, const ReleaseMessage&) = default;
};

// VMM → daemon.
struct ReleasedMessage {
  SessionId session_id;
  friend bool operator==(const ReleasedMessage&, const ReleasedMessage&) = default;
};

// Daemon → VMM: make these blocks inaccessible, so that a guest that is started all the same touches
// none of its memory.
struct FenceMessage {
  SessionId session_id;
  uint32_t snapshot = 0;         // whose blocks are numbered
  std::vector<uint16_t> blocks;  // 1 to 64 positions in RegisterMessage::blocks, each once

  friend bool operator==(const FenceMessage&, const FenceMessage&) = default;
};

// VMM → daemon: every access to the blocks ends the VMM from now on.
struct FencedMessage {
  SessionId session_id;
  friend bool operator==(const FencedMessage&, const FencedMessage&) = default;
};

// VMM → daemon: nothing is fenced for this session.
struct FenceFailedMessage {
  SessionId session_id;
  std::string text;
  friend bool operator==(const FenceFailedMessage&, const FenceFailedMessage&) = default;
};

// Daemon → VMM: make the blocks accessible again.
struct UnfenceMessage {
  SessionId session_id;
  friend bool operator==(const UnfenceMessage&, const UnfenceMessage&) = default;
};

// VMM → daemon: nothing is fenced for this session.
struct UnfencedMessage {
  SessionId session_id;
  friend bool operator==(const UnfencedMessage&, const UnfencedMessage&) = default;
};

// VMM → daemon: at least one block is fenced still.
struct UnfenceFailedMessage {
  SessionId session_id;
  std::string text;
  friend bool operator==(const UnfenceFailedMessage&, const UnfenceFailedMessage&) = default;
};

// Either way: why the sender closes the connection now.
struct ErrorMessage {
  std::string text;
  friend bool operator==(const ErrorMessage&, const ErrorMessage&) = default;
};

using AgentMessage = std::variant<RegisterMessage, RegisteredMessage, ArmMessage, ArmedMessage,
                                  ArmFailedMessage, ReleaseMessage, ReleasedMessage, ErrorMessage,
                                  FenceMessage, FencedMessage, FenceFailedMessage, UnfenceMessage,
                                  UnfencedMessage, UnfenceFailedMessage>;

// How many descriptors travel with the message.
size_t CountDescriptors(const AgentMessage& message);

// kInvalidArgument, naming the field, if the message breaks a rule of the document (a limit, an
// unaligned block, a name with a slash…). What passes can be encoded and decoded again.
Result<void> Validate(const AgentMessage& message);

// The whole frame, header included. REQUIRES: Validate(message).ok().
std::vector<std::byte> Encode(const AgentMessage& message);

// kUnsupported: a REGISTER of a protocol version that is not spoken here; its text may be sent as a refusal.
// kProtocol: anything else that the document does not allow, naming the message.
Result<AgentMessage> DecodeAgentFrame(const Frame& frame);

// `text` cut to a limit on a UTF-8 character boundary.
std::string CutText(std::string text, size_t limit_bytes);

}  // namespace postcopy::wire
