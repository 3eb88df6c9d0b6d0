// `lab-load-client run`: a closed loop of requests over kept-open connections until told to stop.
#ifndef POSTCOPY_LAB_LOAD_LOAD_RUN_H_
#define POSTCOPY_LAB_LOAD_LOAD_RUN_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "http_connection.h"

namespace postcopy_lab {

struct LoadOptions {
  Server server;
  int connections = 8;
  std::chrono::milliseconds think{5};     // from a response to the next request of that connection
  std::chrono::milliseconds timeout{0};   // 0: none; a request older than that has failed
  std::chrono::milliseconds duration{0};  // 0: until SIGTERM or SIGINT
  uint64_t files = 4096;                  // requests /f/0 … /f/files-1
  uint64_t seed = 1;                      // of the order in which files are asked for
  std::string output;                     // the JSON's path; empty: standard output
};

// Runs the load on this thread and writes the JSON. A failed request is counted, never sent again;
// a lost connection is counted and replaced after 100 ms. Prints "started" on standard output with
// the first response. Returns the process's exit code: 0 also when requests failed, 1 when the JSON
// could not be written or the run could not begin (said on standard error).
int RunLoad(const LoadOptions& options);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_LOAD_RUN_H_
