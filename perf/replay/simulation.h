// Plays a guest's touches against one order of the bulk, without a VM: same input, same result.
//
// The model:
//   link      One queue from the source to the destination, first come first served, whoever sends:
//             a demanded page waits behind what is on its way before it. Requests and grants take
//             half a round trip and no bandwidth. Every page with data is sent whole, with its
//             frame's head.
//   install   A page is there a fixed time after it has come; the bulk's pages are installed one
//             after another, a demanded one beside them.
//   bulk      One lane; the policy says what, the daemon's own GrantWindow how much may be on its
//             way, as in the daemon (engine/precacher.h): more is granted when a grant has arrived.
//             It begins a round trip after the guest's RESUME, with what the source knows of holes:
//             what the daemon's brings before, around what the machine's load waits for, is left
//             out.
//   guest     touches.h. A touch of a page that is there costs nothing; otherwise it is asked for,
//             even if it is on its way already, as the daemon does, and the touch ends when the
//             page is there, whichever copy was first. Before the bulk begins nobody knows which
//             pages have no data: they are asked for too, and answered without content.
//
// Not modelled: lanes that share the link, processor time, vCPUs that hold each other up, pages of
// zeros.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "perf/replay/policy.h"
#include "trace/trace_text.h"

namespace postcopy::replay {

struct Parameters {
  double bytes_per_s = 1e9 / 8;
  std::chrono::nanoseconds round_trip = std::chrono::microseconds(100);  // an empty link's
  std::chrono::nanoseconds install = std::chrono::microseconds(2);       // a page
};

struct Outcome {
  std::string policy;
  uint64_t touches = 0;             // distinct pages that the guest needed
  uint64_t faults_left = 0;         // of these, not there when touched
  std::chrono::nanoseconds wait{};  // of all of them together
  std::chrono::nanoseconds longest_wait{};
  std::chrono::nanoseconds last_touch{};  // when the last wait, or touch, was over
  std::chrono::nanoseconds last_page{};   // when all memory was there
  uint64_t needed_bytes = 0;              // pushed, and there before its touch
  // Pushed although pages before it in address order still had to be, and not touched afterwards;
  // or sent twice.
  uint64_t wasted_bytes = 0;
  uint64_t sent_twice_bytes = 0;  // of these, demanded while already on its way
};

// Pages of a trace that can be replayed: a byte each is held.
inline constexpr uint64_t kMostPages = uint64_t{1} << 30;

// kInvalidArgument: the trace does not say what has to be brought and when the guest resumed, or it
// has blocks with huge pages, which come whole, or more than kMostPages.
absl::StatusOr<Outcome> Simulate(const Trace& trace, const PolicyKind& policy,
                                 const Parameters& parameters);

}  // namespace postcopy::replay
