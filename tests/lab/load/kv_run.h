// `lab-load-client kv`: a closed loop of get and set on a memcached that it has filled, each value
// verified.
#ifndef POSTCOPY_LAB_LOAD_KV_RUN_H_
#define POSTCOPY_LAB_LOAD_KV_RUN_H_

#include <chrono>
#include <cstdint>

#include "closed_loop.h"
#include "tcp_connection.h"

namespace postcopy_lab {

struct KvOptions {
  Server server;
  LoopOptions loop;
  uint64_t values_mib = 256;
  uint64_t seed = 1;       // of the values, and of the order of requests
  double exponent = 0.99;  // of the keys' frequency (key_choice.h), as in YCSB; 0: all are equal
  int set_percent = 10;    // of the requests; the others are gets
  std::chrono::milliseconds fill_timeout{30'000};  // while filling: without any progress
};

// Fills the server, then RunClosedLoop. A get whose value is not there, is wrong or is older than
// what was stored before it was sent has failed, and is counted in the JSON's wrong_values besides.
// Returns 1 also when the server could not be filled (said on standard error).
int RunKv(const KvOptions& options);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_KV_RUN_H_
