// Ctrl-C (SIGINT) and SIGTERM: the first is noted, so that a command can end what it began; the
// second ends the process as if nobody had asked for it.
#pragma once

#include <functional>

#include "absl/synchronization/notification.h"

namespace postcopy {

// From now on the first signal is only noted. Call before anything that is to be ended in order.
void NoteInterrupts();

// True once a signal has come. Safe from any thread.
bool Interrupted();

// Waits until `done` or a signal; true: `done`.
bool WaitUnlessInterrupted(const absl::Notification& done);

// Runs `work` on a thread of its own and returns when it has returned. On a signal meanwhile
// `on_interrupt` is called once, on this thread: it makes `work` return soon.
void RunInterruptibly(const std::function<void()>& work, const std::function<void()>& on_interrupt);

}  // namespace postcopy
