// What the guests of many VMMs do, asked of all their monitors at once by one thread, for a list.
//
// No monitor makes the caller wait longer than the limit, nor costs it more than so many bytes,
// whatever it does: a VMM that hangs, one whose monitor another client holds, a process that is none.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace postcopy {

// Bytes that one monitor may send until it has answered; QEMU's answers here are under 1 KiB.
inline constexpr size_t kMaxGuestAnswerBytes = size_t{256} << 10;
// How long all of them together are waited for.
inline constexpr std::chrono::milliseconds kGuestAnswerLimit{2'000};

struct Monitor {
  std::string path;  // of its socket; empty: none was told
  int pid = 0;       // of the VMM; no other process is talked to
};

// One of the two is empty.
struct GuestAnswer {
  std::string state_text;  // "running", "paused", … as VmmDescription has it
  std::string problem;     // why it is not known, as a sentence about the VM
};

// The answers, in the order of the monitors. Blocks for `limit` at most.
std::vector<GuestAnswer> AskGuestStates(const std::vector<Monitor>& monitors,
                                        std::chrono::milliseconds limit = kGuestAnswerLimit);

// What is wrong with a VM that has told no monitor socket.
absl::Status NoMonitor();

}  // namespace postcopy
