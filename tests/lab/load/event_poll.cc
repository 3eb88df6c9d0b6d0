#include "event_poll.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

namespace postcopy_lab {

std::string EventPoll::Open() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const int signals = signalfd(-1, &set, SFD_CLOEXEC);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  if (signals < 0 || epoll_ < 0) return std::string("wait for signals: ") + strerror(errno);
  return Add(signals, EPOLLIN, nullptr);
}

std::string EventPoll::Control(int operation, int descriptor, uint32_t events, void* tag) {
  epoll_event event{.events = events, .data = {.ptr = tag}};
  if (epoll_ctl(epoll_, operation, descriptor, &event) == 0) return {};
  return std::string("epoll: ") + strerror(errno);
}

std::string EventPoll::Add(int descriptor, uint32_t events, void* tag) {
  return Control(EPOLL_CTL_ADD, descriptor, events, tag);
}

std::string EventPoll::Change(int descriptor, uint32_t events, void* tag) {
  return Control(EPOLL_CTL_MOD, descriptor, events, tag);
}

bool EventPoll::Wait(std::chrono::steady_clock::time_point until,
                     const std::function<void(void*)>& ready) {
  const auto left = std::chrono::nanoseconds(until - std::chrono::steady_clock::now()).count();
  const int64_t ns = std::max<int64_t>(0, left);
  const timespec wait{.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
  std::array<epoll_event, 64> events;
  const int count = epoll_pwait2(epoll_, events.data(), events.size(), &wait, nullptr);
  bool go_on = true;
  for (int i = 0; i < count; ++i) {
    void* tag = events[static_cast<size_t>(i)].data.ptr;
    if (tag == nullptr) {
      go_on = false;
    } else {
      ready(tag);
    }
  }
  return go_on;
}

}  // namespace postcopy_lab
