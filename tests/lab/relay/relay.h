// Passes packets on between two TUN devices, each a fixed time after it came: a link with a delay.
//
// The packets are not looked at. Not responsible for the devices, nor for what is routed over them
// (tests/lab/relay.py).
#ifndef POSTCOPY_LAB_RELAY_RELAY_H_
#define POSTCOPY_LAB_RELAY_RELAY_H_

#include <array>
#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "delay_line.h"

namespace postcopy_lab {

struct RelayOptions {
  std::chrono::microseconds delay{0};  // of each direction
  int first = -1;                      // a TUN device with IFF_VNET_HDR
  int second = -1;                     // the other
};

// One thread. Holds at most kLineBytes of packets a direction; what comes when they are full is
// dropped, as a router would. Super-packets (TSO) pass whole.
class Relay {
 public:
  // At 25 ms one way that is 1.3 GB/s, and as much as five connections with the kernel's default
  // buffers can have on their way.
  static constexpr size_t kLineBytes = size_t{32} << 20;

  explicit Relay(const RelayOptions& options);

  // Runs until SIGTERM or SIGINT. False, with the cause in problem(), when a device is gone.
  bool Run();
  const std::string& problem() const { return problem_; }

  // For each direction: packets, bytes (with 10 of virtio_net_hdr a packet), dropped (packets),
  // held_max_bytes, and how much later than they were due packets left: late_mean_us, late_max_us.
  nlohmann::json Counts() const;

 private:
  using Time = DelayLine::Time;
  struct Direction {
    const char* name;
    int from;
    int to;
    DelayLine line;
    uint64_t packets = 0;
    uint64_t bytes = 0;
    uint64_t dropped = 0;
    size_t held_max_bytes = 0;
    std::chrono::nanoseconds late_sum{0};
    std::chrono::nanoseconds late_max{0};
  };

  bool Take(Direction& direction);
  void PassOn(Direction& direction);
  bool Wait(int signals);
  bool Fail(const char* operation);

  std::array<Direction, 2> directions_;
  std::vector<std::byte> scratch_;  // for a packet that is dropped
  std::string problem_;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_RELAY_RELAY_H_
