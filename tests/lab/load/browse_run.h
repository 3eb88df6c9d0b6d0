// `lab-load-client browse`: visitors of the guest's web site until told to stop.
#ifndef POSTCOPY_LAB_LOAD_BROWSE_RUN_H_
#define POSTCOPY_LAB_LOAD_BROWSE_RUN_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "http_connection.h"

namespace postcopy_lab {

// Visitors at a time: each has two connections, and the guest's server takes a thousand-odd.
inline constexpr int kMaxVisitors = 400;

struct BrowseOptions {
  Server server;
  std::string mix;    // a name of web_mix.h
  int sessions = 40;  // closed loop: so many at a time; a new visitor comes for one that left
  double arrivals_per_s = 0;  // above 0: open loop; visitors come at that rate, whatever happens
  std::chrono::milliseconds think{1000};         // mean, between pages
  uint64_t page_line_bytes_per_s = 1'000'000;    // of each connection; 0: no limit
  uint64_t download_line_bytes_per_s = 100'000;  // the same for downloads
  std::chrono::milliseconds duration{0};         // 0: until SIGTERM or SIGINT
  uint32_t directories = 1;                      // of the guest's site
  uint64_t content_seed = 1;                     // of the guest
  uint64_t seed = 1;                             // of all that is random here
  std::string output;                            // the JSON's path; empty: standard output
};

// Runs the load on this thread and writes the JSON. Prints "started" on standard output with the
// first response. Returns the process's exit code: 0 also when requests failed, 1 when the JSON
// could not be written or the run could not begin (said on standard error). REQUIRES: `mix` is one.
int RunBrowse(const BrowseOptions& options);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_BROWSE_RUN_H_
