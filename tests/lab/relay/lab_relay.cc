// lab-relay: a link with a delay between two hosts of the lab. This file is the command line only;
// see relay.h.
#include <sched.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "relay.h"

namespace {

constexpr char kHelp[] =
    "Passes packets on between two TUN devices, each --delay-us after it came, until SIGTERM or\n"
    "SIGINT. The devices are open file descriptors that this process inherits, with IFF_NO_PI and\n"
    "IFF_VNET_HDR. Holds at most 32 MiB of packets each way and drops what comes beyond. Prints\n"
    "`started`, and one JSON object at the end, for `forward` (first to second) and `backward`:\n"
    "  packets, bytes, dropped   bytes with 10 of virtio_net_hdr a packet\n"
    "  held_max_bytes            the most that was on its way\n"
    "  late_mean_us, late_max_us how long after its time a packet was passed on\n"
    "Exit code: 0 ended by a signal; 1 a device is gone; 2 usage.\n"
    "Example: lab-relay --delay-us 5000 --first 3 --second 4";

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(kHelp);
  postcopy_lab::RelayOptions options;
  int64_t delay_us = 0;
  app.add_option("--delay-us", delay_us, "each way: half of the round trip")
      ->required()
      ->check(CLI::Range(0, 10'000'000));
  app.add_option("--first", options.first, "file descriptor of one host's device")
      ->required()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--second", options.second, "of the other's")
      ->required()
      ->check(CLI::NonNegativeNumber);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  options.delay = std::chrono::microseconds(delay_us);
  // A link does not wait for a processor. Where this is not allowed, late_max_us tells what it
  // costs.
  const sched_param priority{.sched_priority = 1};
  sched_setscheduler(0, SCHED_RR, &priority);

  postcopy_lab::Relay relay(options);
  std::cout << "started" << std::endl;
  const bool ended = relay.Run();
  std::cout << relay.Counts().dump() << std::endl;
  if (!ended) std::cerr << "lab-relay: " << relay.problem() << "\n";
  return ended ? 0 : 1;
}
