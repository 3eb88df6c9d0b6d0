#include "core/session_state.h"

#include <array>

namespace postcopy {
namespace {

struct Transition {
  SessionState from;
  SessionEvent event;
  SessionState to;
};

using State = SessionState;
using Event = SessionEvent;

constexpr std::array kTransitions = {
    Transition{State::kPrepared, Event::kSwitchBegins, State::kStopping},
    Transition{State::kPrepared, Event::kRollBack, State::kRolledBack},
    Transition{State::kPrepared, Event::kCancel, State::kCancelled},
    Transition{State::kPrepared, Event::kVmLost, State::kFailed},

    Transition{State::kStopping, Event::kStateTaken, State::kStopped},
    Transition{State::kStopping, Event::kRollBack, State::kRolledBack},
    Transition{State::kStopping, Event::kCancel, State::kCancelled},
    Transition{State::kStopping, Event::kInDoubt, State::kUnknown},
    Transition{State::kStopping, Event::kVmLost, State::kFailed},

    Transition{State::kStopped, Event::kHandOver, State::kHandedOver},
    Transition{State::kStopped, Event::kRollBack, State::kRolledBack},
    Transition{State::kStopped, Event::kCancel, State::kCancelled},
    Transition{State::kStopped, Event::kInDoubt, State::kUnknown},
    Transition{State::kStopped, Event::kVmLost, State::kFailed},

    // Back only when the destination has durably recorded that it never ran the VM, or when its VMM has ended
    // before it did, by its daemon's word or an operator's.
    Transition{State::kHandedOver, Event::kRollBack, State::kRolledBack},
    Transition{State::kHandedOver, Event::kResumed, State::kRunning},
    Transition{State::kHandedOver, Event::kAllPresent, State::kCommitted},
    Transition{State::kHandedOver, Event::kVmLost, State::kFailed},

    Transition{State::kRunning, Event::kAllPresent, State::kCommitted},
    // Source: what the destination had recorded was not on its disk when its host went down.
    Transition{State::kRunning, Event::kInDoubt, State::kUnknown},
    Transition{State::kRunning, Event::kVmLost, State::kFailed},
    Transition{State::kRunning, Event::kMemoryLost, State::kFailed},

    Transition{State::kUnknown, Event::kHandOver, State::kHandedOver},
    Transition{State::kUnknown, Event::kRollBack, State::kRolledBack},
    Transition{State::kUnknown, Event::kVmLost, State::kFailed},
};

}  // namespace

std::optional<SessionState> Next(SessionState state, SessionEvent event) {
  for (const Transition& transition : kTransitions) {
    if (transition.from == state && transition.event == event) return transition.to;
  }
  return std::nullopt;
}

bool IsFinal(SessionState state) {
  for (const Transition& transition : kTransitions) {
    if (transition.from == state) return false;
  }
  return true;
}

bool IsAfterSwitch(SessionState state) {
  return state == State::kHandedOver || state == State::kRunning || state == State::kCommitted;
}

std::string_view Name(SessionState state) {
  switch (state) {
    case State::kPrepared: return "prepared";
    case State::kStopping: return "stopping";
    case State::kStopped: return "stopped";
    case State::kHandedOver: return "handed-over";
    case State::kRunning: return "running";
    case State::kCommitted: return "committed";
    case State::kRolledBack: return "rolled-back";
    case State::kCancelled: return "cancelled";
    case State::kUnknown: return "unknown";
    case State::kFailed: return "failed";
  }
  return "";
}

}  // namespace postcopy
