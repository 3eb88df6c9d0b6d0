// `lab-load-client run`: a closed loop of HTTP requests until told to stop.
#ifndef POSTCOPY_LAB_LOAD_LOAD_RUN_H_
#define POSTCOPY_LAB_LOAD_LOAD_RUN_H_

#include <cstdint>

#include "closed_loop.h"
#include "http_connection.h"

namespace postcopy_lab {

struct LoadOptions {
  Server server;
  LoopOptions loop;
  uint64_t files = 4096;  // requests /f/0 … /f/files-1
  uint64_t seed = 1;      // of the order in which files are asked for
};

// RunClosedLoop with requests for random files.
int RunLoad(const LoadOptions& options);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_LOAD_RUN_H_
