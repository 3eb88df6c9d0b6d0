#include "cli/interrupt.h"

#include <csignal>
#include <thread>

#include "absl/time/time.h"

namespace postcopy {
namespace {

volatile std::sig_atomic_t interrupted = 0;

extern "C" void NoteSignal(int signal) {
  interrupted = 1;
  std::signal(signal, SIG_DFL);
}

}  // namespace

void NoteInterrupts() {
  std::signal(SIGINT, NoteSignal);
  std::signal(SIGTERM, NoteSignal);
}

bool Interrupted() { return interrupted != 0; }

bool WaitUnlessInterrupted(const absl::Notification& done) {
  while (!done.WaitForNotificationWithTimeout(absl::Milliseconds(50))) {
    if (Interrupted()) return done.HasBeenNotified();
  }
  return true;
}

void RunInterruptibly(const std::function<void()>& work,
                      const std::function<void()>& on_interrupt) {
  absl::Notification done;
  const std::jthread worker([&] {
    work();
    done.Notify();
  });
  if (!WaitUnlessInterrupted(done)) on_interrupt();
}

}  // namespace postcopy
