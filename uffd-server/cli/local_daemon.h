// Which daemon a command is for when its command line does not say.
#pragma once

#include <string>

namespace postcopy {

struct DaemonChoice {
  std::string address;    // HOST:PORT or unix:PATH
  std::string chosen_by;  // "--daemon", for messages
};

// In this order: `option` (--daemon), `environment` (POSTCOPY_DAEMON), `listen` of the configuration
// file at `config_path`, 127.0.0.1:7700. Of several addresses to listen on one that only this host can
// reach is taken first; a wildcard is the loopback address of its kind. A file that is not there,
// can't be read or is wrong is passed over, which `chosen_by` says.
DaemonChoice ChooseDaemon(const std::string& option, const std::string& environment,
                          const std::string& config_path);

}  // namespace postcopy
