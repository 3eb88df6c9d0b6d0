#include "relay.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace postcopy_lab {
namespace {

using std::chrono::nanoseconds;
using Clock = std::chrono::steady_clock;

// Packets taken from a device before the other work gets its turn: some 100 us of copying.
constexpr int kBatch = 16;

double Microseconds(nanoseconds time) { return static_cast<double>(time.count()) / 1e3; }

}  // namespace

Relay::Relay(const RelayOptions& options)
    : directions_{Direction{"forward", options.first, options.second,
                            DelayLine(options.delay, kLineBytes)},
                  Direction{"backward", options.second, options.first,
                            DelayLine(options.delay, kLineBytes)}},
      scratch_(DelayLine::kMaxPacketBytes) {}

bool Relay::Fail(const char* operation) {
  problem_ = std::string(operation) + ": " + strerror(errno);
  return false;
}

bool Relay::Run() {
  prctl(PR_SET_TIMERSLACK, 1);  // the default of 50 us is as long as a packet may be late
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  const int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) return Fail("wait for signals");
  for (const Direction& direction : directions_) {
    if (fcntl(direction.from, F_SETFL, O_RDWR | O_NONBLOCK) != 0) return Fail("open device");
  }
  while (Wait(signals)) {
    for (Direction& direction : directions_) {
      PassOn(direction);
      if (!Take(direction)) return false;
    }
  }
  close(signals);
  return problem_.empty();
}

// Sleeps until there is something to do. False: a signal has come, or Fail.
bool Relay::Wait(int signals) {
  std::array<pollfd, 3> watched{
      {{directions_[0].from, POLLIN, 0}, {directions_[1].from, POLLIN, 0}, {signals, POLLIN, 0}}};
  const timespec* until = nullptr;
  timespec left{};
  std::optional<Time> due;
  for (const Direction& direction : directions_) {
    const std::optional<Time> next = direction.line.next_due();
    if (next && (!due || *next < *due)) due = next;
  }
  if (due) {
    const auto ns = std::max<int64_t>(0, nanoseconds(*due - Clock::now()).count());
    left = {.tv_sec = ns / 1'000'000'000, .tv_nsec = ns % 1'000'000'000};
    until = &left;
  }
  if (ppoll(watched.data(), watched.size(), until, nullptr) < 0 && errno != EINTR) {
    return Fail("wait for packets");
  }
  return watched[2].revents == 0;
}

// Takes what has come, at most kBatch packets. False: Fail.
bool Relay::Take(Direction& direction) {
  for (int i = 0; i < kBatch; ++i) {
    const std::span<std::byte> room = direction.line.Room();
    const std::span<std::byte> into = room.empty() ? std::span(scratch_) : room;
    const ssize_t got = read(direction.from, into.data(), into.size());
    if (got < 0 && errno == EAGAIN) return true;
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return Fail("read from device");
    if (room.empty()) {
      ++direction.dropped;
      continue;
    }
    direction.line.Push(static_cast<size_t>(got), Clock::now());
    direction.held_max_bytes = std::max(direction.held_max_bytes, direction.line.held_bytes());
  }
  return true;
}

// Passes on what is due.
void Relay::PassOn(Direction& direction) {
  while (const std::optional<Time> due = direction.line.next_due()) {
    const nanoseconds late = Clock::now() - *due;
    if (late.count() < 0) return;
    const std::span<const std::byte> packet = direction.line.Front();
    ssize_t sent;
    do {
      sent = write(direction.to, packet.data(), packet.size());
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
      ++direction.dropped;  // what the other host's stack refuses is lost, as on a wire
    } else {
      ++direction.packets;
      direction.bytes += packet.size();
      direction.late_sum += late;
      direction.late_max = std::max(direction.late_max, late);
    }
    direction.line.Pop();
  }
}

nlohmann::json Relay::Counts() const {
  nlohmann::json counts;
  for (const Direction& direction : directions_) {
    const double mean_us = direction.packets == 0 ? 0
                                                  : Microseconds(direction.late_sum) /
                                                        static_cast<double>(direction.packets);
    counts[direction.name] = {
        {"packets", direction.packets}, {"bytes", direction.bytes},
        {"dropped", direction.dropped}, {"held_max_bytes", direction.held_max_bytes},
        {"late_mean_us", mean_us},      {"late_max_us", Microseconds(direction.late_max)}};
  }
  return counts;
}

}  // namespace postcopy_lab
