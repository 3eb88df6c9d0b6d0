// Whether a touch of memory raises SIGBUS, without the end of the test.
#pragma once

#include <setjmp.h>
#include <signal.h>

namespace postcopy {

inline thread_local sigjmp_buf* sigbus_return = nullptr;

inline void OnSigbus(int) {
  if (sigbus_return == nullptr) {
    signal(SIGBUS, SIG_DFL);
    return;  // it is raised again
  }
  siglongjmp(*sigbus_return, 1);
}

// Reads the byte; blocks as long as its page is missing. Any thread.
inline bool RaisesSigbus(const volatile void* address) {
  struct sigaction action {};
  action.sa_handler = OnSigbus;
  sigaction(SIGBUS, &action, nullptr);
  sigjmp_buf here;
  volatile bool raised = false;
  if (sigsetjmp(here, 1) == 0) {
    sigbus_return = &here;
    [[maybe_unused]] const char byte = *static_cast<const volatile char*>(address);
  } else {
    raised = true;
  }
  sigbus_return = nullptr;
  return raised;
}

}  // namespace postcopy
