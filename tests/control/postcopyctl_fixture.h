// The real postcopyctl against a daemon's control server within the test.
#ifndef POSTCOPY_TESTS_CONTROL_POSTCOPYCTL_FIXTURE_H_
#define POSTCOPY_TESTS_CONTROL_POSTCOPYCTL_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "control/control_server.h"
#include "tests/control/fake_relocations.h"
#include "tests/control/run_command.h"

namespace postcopy {

class PostcopyctlTest : public ::testing::Test {
 protected:
  PostcopyctlTest()
      : server_(ControlServer::Start({.addresses = {"127.0.0.1:0"}}, relocations_).value()) {}

  std::vector<std::string> Words(const std::vector<std::string>& arguments) const {
    std::vector<std::string> words{POSTCOPYCTL, "--daemon", server_->addresses()[0]};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return words;
  }
  Finished Run(const std::vector<std::string>& arguments) const {
    Finished run = RunningCommand(Words(arguments)).Wait();
    Keep(arguments, run);
    return run;
  }
  // Appends an answer in JSON to the file that POSTCOPY_ANSWERS names, for json_test.py.
  static void Keep(const std::vector<std::string>& arguments, const Finished& run) {
    const char* const file = std::getenv("POSTCOPY_ANSWERS");
    const bool in_json = std::find(arguments.begin(), arguments.end(), "--json") != arguments.end();
    if (file == nullptr || !in_json) return;
    std::ofstream(file, std::ios::app)
        << nlohmann::json{{"arguments", arguments}, {"code", run.code}, {"out", run.out}}.dump() << "\n";
  }
  // Running, half there, committed.
  void LetItCommit() {
    Progress half = ProgressIn(SessionState::kRunning);
    half.data_bytes = 1 << 30;
    half.present_bytes = 1 << 29;
    half.bulk_bytes = 1 << 29;
    half.elapsed_ms = 300;
    Progress done = half;
    done.state = SessionState::kCommitted;
    done.present_bytes = done.bulk_bytes = 1 << 30;
    done.faults = 1234;
    done.fault_p99_us = 800.5;
    done.downtime_ms = 7.5;
    done.committed_at_us = 1'700'000'000'123'456;
    relocations_.AfterSwitch({half, done});
  }

  FakeRelocations relocations_;
  std::unique_ptr<ControlServer> server_;
};

inline const std::vector<std::string> kRelocate{"relocate", "web1", "--to", "10.77.0.12"};

}  // namespace postcopy

#endif  // POSTCOPY_TESTS_CONTROL_POSTCOPYCTL_FIXTURE_H_
