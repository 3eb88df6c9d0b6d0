// The states of a relocation, the events that move it on, and the one table that says which leads
// where. Both sides use the same table; each sees only the events of its side.
//
// Until kHandedOver the source owns the VM and everything can be taken back; kHandedOver is the
// switch; from there on only the destination may ever run it (docs/architecture.md, "The switch").
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace postcopy {

enum class SessionState : uint8_t {
  kPrepared,    // both sides are ready, the VM runs at the source
  kStopping,    // the source is being stopped and its device state taken
  kStopped,     // the device state has left the source's VMM; on its way or loaded
  kHandedOver,  // the destination is the owner
  kRunning,     // it runs (or stays paused) at the destination, memory still arriving
  kCommitted,   // every page is at the destination
  kRolledBack,  // it runs at the source, again or still
  kCancelled,   // the same, because an operator asked for it
  kUnknown,     // stopped here until the other side has been asked
  kFailed,      // the VM has ended as in a crash, or runs on without a part of its memory
};
inline constexpr int kSessionStates = 10;

// The end of a relocation that a host is. Where a VM is relocated within one host, that host is both.
enum class SessionRole : uint8_t { kSource, kDestination };

enum class SessionEvent : uint8_t {
  kSwitchBegins,
  kStateTaken,  // source: has the whole device state; destination: has loaded it
  kHandOver,    // source: "handed over" is durable; destination: "owner" is durable
  kResumed,     // the guest runs at the destination
  kAllPresent,  // every page is at the destination; at the source: it has been told
  kRollBack,    // the source goes on
  kCancel,      // the source goes on because an operator asked for it
  kInDoubt,     // whether the hand-over was recorded is not known
  kVmLost,      // the only VMM that could run it has ended
  kMemoryLost,  // it runs at the destination, and a part of its memory will never be there
};
inline constexpr int kSessionEvents = 10;

// The state that `event` leads to; nothing: the event is not possible there.
std::optional<SessionState> Next(SessionState state, SessionEvent event);

// No event leads out of it.
bool IsFinal(SessionState state);
// The destination is, or was, the owner.
bool IsAfterSwitch(SessionState state);
// Lower case, as in log lines: "handed-over".
std::string_view Name(SessionState state);

}  // namespace postcopy
