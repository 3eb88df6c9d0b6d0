// The daemon's options: names, defaults, help and limits, said once. The command line and the
// configuration file (config_file.h) both take them from here.
//
// Not responsible for what the values mean: main.cc hands them to the parts.
#pragma once

#include <CLI/CLI.hpp>
#include <cstddef>
#include <string>
#include <vector>

namespace postcopy {

// Read when --config names no other file, if it is there.
inline constexpr const char* kDefaultConfigFile = "/etc/postcopy/uffd-server.toml";

struct Options {
  std::string config_file;
  std::vector<std::string> listen = {"127.0.0.1:7700"};
  std::vector<std::string> data_listen;
  std::string advertise;
  std::vector<std::string> advertise_data;
  std::string runtime_dir = "/run/postcopy";
  std::string state_dir = "/var/lib/postcopy";
  std::string agent_group;
  bool insecure = false;
  size_t bulk_lanes = 2;
  std::string source_lost = "wait";
  unsigned source_lost_after_s = 300;
  unsigned shutdown_wait_s = 900;
  std::string trace_folder;
  std::vector<std::string> faults;
  std::string log_level = "info";
};

// Declares all of them. What may not stand in the configuration file is not configurable() there.
// `options` must outlive `app`, which stores values in it while it parses.
void Declare(CLI::App& app, Options& options);

}  // namespace postcopy
