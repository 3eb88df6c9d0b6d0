// `lab-load-client verify`: fetches every file once and compares its SHA-256 with what it must be.
#ifndef POSTCOPY_LAB_LOAD_VERIFY_RUN_H_
#define POSTCOPY_LAB_LOAD_VERIFY_RUN_H_

#include <chrono>
#include <cstdint>
#include <string>

#include "http_connection.h"

namespace postcopy_lab {

struct VerifyOptions {
  Server server;
  int connections = 4;
  uint64_t files = 4096;
  uint64_t seed = 1;    // of the guest's content
  std::string program;  // path; not empty: the content is realistic, with machine code from there
  std::chrono::milliseconds timeout{60'000};  // without any file finished: give up
};

// Prints {"files", "checked", "wrong", "first_wrong", "seconds", "error"} as JSON on standard
// output; first_wrong and error may be null. Returns the exit code: 0 all files are right, 1 some
// are wrong, 3 they could not all be fetched (`error` says why), 1 with
// words on standard error if the program cannot be read.
int RunVerify(const VerifyOptions& options);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_VERIFY_RUN_H_
