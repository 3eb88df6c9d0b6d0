#include "config/options.h"

#include "core/address.h"

namespace postcopy {
namespace {

// Takes an address and makes it the text that every part takes, with its port.
CLI::Validator AddressOf(const AddressForm& form) {
  return CLI::Validator(
      [form](std::string& text) {
        const auto address = Address::Parse(text, form);
        if (!address.ok()) return address.error().message;
        text = address->ToString();
        return std::string();
      },
      "");
}

}  // namespace

void Declare(CLI::App& app, Options& options) {
  app.add_option("--config", options.config_file,
                 std::string("File with the same options, as name = value (default: ") +
                     kDefaultConfigFile + ", if it is there)")
      ->configurable(false);
  app.add_option("--listen", options.listen,
                 "Addresses of the control plane, HOST[:PORT] or unix:PATH; the port is 7700 if none "
                 "is named")
      ->capture_default_str()
      ->transform(
          AddressOf({.default_port = kControlPort, .may_be_unix = true, .may_listen = true}));
  app.add_option("--data-listen", options.data_listen,
                 "Addresses of the page server, HOST[:PORT] (default: the hosts of --listen, port "
                 "7701)")
      ->transform(AddressOf({.default_port = kDataPort, .may_be_unix = false, .may_listen = true}));
  app.add_option("--advertise", options.advertise,
                 "Control address that other daemons are told, HOST:PORT (default: the first of "
                 "--listen that they can reach)")
      ->transform(AddressOf({}));
  app.add_option("--advertise-data", options.advertise_data,
                 "Page server addresses that other daemons are told, HOST:PORT (default: those of "
                 "--data-listen that they can reach)")
      ->transform(AddressOf({}));
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
  app.add_option("--shutdown-wait", options.shutdown_wait_s,
                 "Seconds for which a shutdown of the host waits at most while another host needs memory "
                 "of it; 0: not at all")
      ->capture_default_str()
      ->check(CLI::Range(0u, 86400u));
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
