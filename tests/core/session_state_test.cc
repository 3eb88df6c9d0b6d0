#include "core/session_state.h"

#include <set>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

using State = SessionState;
using Event = SessionEvent;

std::vector<State> AllStates() {
  std::vector<State> states;
  for (int i = 0; i < kSessionStates; ++i) states.push_back(static_cast<State>(i));
  return states;
}

std::vector<Event> AllEvents() {
  std::vector<Event> events;
  for (int i = 0; i < kSessionEvents; ++i) events.push_back(static_cast<Event>(i));
  return events;
}

bool SourceGoesOn(State state) { return state == State::kRolledBack || state == State::kCancelled; }

// The table as a picture: a row a state, a column an event, the first letters of where it leads.
TEST(SessionStateTest, EveryStateAndEventLeadWhereThePictureSays) {
  // Columns: switch-begins state-taken hand-over resumed all-present roll-back cancel in-doubt
  // vm-lost memory-lost
  const char* const kPicture[kSessionStates][kSessionEvents] = {
      /* prepared    */ {"stopping", "", "", "", "", "rolled-back", "cancelled", "", "failed", ""},
      /* stopping    */
      {"", "stopped", "", "", "", "rolled-back", "cancelled", "unknown", "failed", ""},
      /* stopped     */
      {"", "", "handed-over", "", "", "rolled-back", "cancelled", "unknown", "failed", ""},
      /* handed-over */ {"", "", "", "running", "committed", "rolled-back", "", "", "failed", ""},
      /* running     */ {"", "", "", "", "committed", "", "", "unknown", "failed", "failed"},
      /* committed   */ {"", "", "", "", "", "", "", "", "", ""},
      /* rolled-back */ {"", "", "", "", "", "", "", "", "", ""},
      /* cancelled   */ {"", "", "", "", "", "", "", "", "", ""},
      /* unknown     */ {"", "", "handed-over", "", "", "rolled-back", "", "", "failed", ""},
      /* failed      */ {"", "", "", "", "", "", "", "", "", ""},
  };
  for (const State state : AllStates()) {
    for (const Event event : AllEvents()) {
      const auto next = Next(state, event);
      EXPECT_EQ(next.has_value() ? std::string(Name(*next)) : "",
                kPicture[static_cast<int>(state)][static_cast<int>(event)])
          << Name(state) << ", event " << static_cast<int>(event);
    }
  }
}

TEST(SessionStateTest, FinalStatesAreTheFourEnds) {
  for (const State state : AllStates()) {
    EXPECT_EQ(IsFinal(state), state == State::kCommitted || SourceGoesOn(state) ||
                                  state == State::kFailed)
        << Name(state);
  }
}

TEST(SessionStateTest, OnceTheDestinationRunsNothingButItsOwnWordLeadsBackToTheSource) {
  std::set<State> reached{State::kRunning};
  for (size_t before = 0; before != reached.size();) {
    before = reached.size();
    for (const State state : std::set(reached)) {
      for (const Event event : AllEvents()) {
        if (event == Event::kInDoubt) continue;  // it says that it is not so
        if (const auto next = Next(state, event)) reached.insert(*next);
      }
    }
  }
  for (const State state : reached) EXPECT_FALSE(SourceGoesOn(state)) << Name(state);
}

TEST(SessionStateTest, CancelIsPossibleBeforeTheSwitchOnly) {
  for (const State state : AllStates()) {
    if (IsAfterSwitch(state)) {
      EXPECT_FALSE(Next(state, Event::kCancel).has_value()) << Name(state);
    }
  }
}

TEST(SessionStateTest, NamesAreDistinct) {
  std::set<std::string_view> names;
  for (const State state : AllStates()) names.insert(Name(state));
  EXPECT_EQ(names.size(), static_cast<size_t>(kSessionStates));
  EXPECT_FALSE(names.contains(""));
}

}  // namespace
}  // namespace postcopy
