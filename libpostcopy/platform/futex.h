// futex(2), as far as it is used here: waits of one process, whose time-outs are durations of the
// steady clock. Needs Linux 2.6.22.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

namespace postcopy {

// Blocks while `word` is `expected`, until woken, or for `timeout`; nothing: without limit. Also
// returns for no reason. False: the time is over. Time that is set forward or back does not count.
bool FutexWait(std::atomic<int32_t>& word, int32_t expected,
               std::optional<std::chrono::nanoseconds> timeout);
// Wakes one thread that waits for `word`.
void FutexWakeOne(std::atomic<int32_t>& word);

}  // namespace postcopy
