// Waits for sockets, for a moment, and for the signals that end a run.
//
// Says what is ready and decides nothing.
#ifndef POSTCOPY_LAB_LOAD_EVENT_POLL_H_
#define POSTCOPY_LAB_LOAD_EVENT_POLL_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>

namespace postcopy_lab {

// One thread. Lives until the process ends: closes nothing.
class EventPoll {
 public:
  // To be called first. From then on SIGTERM and SIGINT no longer end the process, they end the
  // run. Empty if all is well, else what is not.
  std::string Open();

  // Waits for `events` (EPOLLIN, EPOLLOUT; 0: only for the connection's end) of a socket, from now
  // on and until it is closed; Change() replaces them. `tag` is handed out when it is ready, and is
  // not null. Empty if all is well, else what is not.
  std::string Add(int descriptor, uint32_t events, void* tag);
  std::string Change(int descriptor, uint32_t events, void* tag);

  // Calls `ready` for each socket that is ready; returns when that was done, or at `until` if none
  // is. Sockets that `ready` closes may still be handed out once more. False: a signal has come.
  bool Wait(std::chrono::steady_clock::time_point until, const std::function<void(void*)>& ready);

 private:
  std::string Control(int operation, int descriptor, uint32_t events, void* tag);

  int epoll_ = -1;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_EVENT_POLL_H_
