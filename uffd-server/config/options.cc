#include "config/options.h"

namespace postcopy {

void Declare(CLI::App& app, Options& options) {
  app.add_option("--config", options.config_file,
                 std::string("File with the same options, as name = value (default: ") +
                     kDefaultConfigFile + ", if it is there)")
      ->configurable(false);
  app.add_option("--listen", options.listen,
                 "Addresses of the control plane, HOST:PORT or unix:PATH")
      ->capture_default_str();
  app.add_option("--data-listen", options.data_listen,
                 "Addresses of the page server, HOST:PORT (default: the host of --listen, port 7701)");
  app.add_option("--advertise", options.advertise,
                 "Control address that other daemons are told (default: the first of --listen)");
  app.add_option("--advertise-data", options.advertise_data,
                 "Page server addresses that other daemons are told (default: --data-listen)");
  app.add_option("--runtime-dir", options.runtime_dir, "Directory of agent.sock")
      ->capture_default_str();
  app.add_option("--agent-group", options.agent_group,
                 "Group whose processes may register VMs at agent.sock, e.g. that of an unprivileged "
                 "QEMU (default: the daemon's own)");
  app.add_option("--state-dir", options.state_dir, "Directory of the ownership records")
      ->capture_default_str();
  app.add_flag("--insecure", options.insecure,
               "Listen on addresses that other hosts can reach, without encryption");
  app.add_option("--bulk-lanes", options.bulk_lanes, "Connections for the bulk, at the destination")
      ->capture_default_str()
      ->check(CLI::Range(1, 16));
  app.add_option(
         "--source-lost", options.source_lost,
         "What becomes of a VM that arrives when its source is gone for good: wait, poison (what "
         "is missing raises SIGBUS) or kill")
      ->capture_default_str()
      ->check(CLI::IsMember({"wait", "poison", "kill"}));
  app.add_option("--source-lost-after", options.source_lost_after_s,
                 "Seconds without reaching the source after which that is done")
      ->capture_default_str()
      ->check(CLI::Range(1u, 86400u));
  app.add_option("--trace-folder", options.trace_folder,
                 "Directory that gets the faults of each VM that arrives, a file each (default: none, "
                 "they are not recorded)");
  app.add_option("--fault", options.faults,
                 "For tests: corrupt-one-byte[=PAGES], delay-bulk=SECONDS or hold-at=STEP; may be repeated")
      ->configurable(false);
  app.add_option("--log-level", options.log_level, "trace, debug, info, warn, err or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err", "off"}));
}

}  // namespace postcopy
