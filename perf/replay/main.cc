// replay: plays a trace of faults (docs/trace-format.md) against orders of the bulk, without a VM.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

#include "perf/replay/policy.h"
#include "perf/replay/replay_text.h"
#include "perf/replay/simulation.h"
#include "trace/trace_text.h"

namespace postcopy::replay {
namespace {

constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

int Fail(const std::string& object, const std::string& cause) {
  std::fprintf(stderr, "replay: %s: %s\n", object.c_str(), cause.c_str());
  return kExitFailed;
}

int Run(const std::string& path, const std::vector<std::string>& names,
        const Parameters& parameters, bool json) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Fail("read " + path, std::generic_category().message(errno));
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  if (file.bad()) return Fail("read " + path, std::generic_category().message(errno));
  const auto trace = ParseTrace(text);
  if (!trace.ok()) return Fail("read " + path, std::string(trace.status().message()));

  std::vector<Outcome> outcomes;
  for (const PolicyKind& policy : AllPolicies()) {
    if (!names.empty() && std::find(names.begin(), names.end(), policy.name) == names.end())
      continue;
    auto outcome = Simulate(*trace, policy, parameters);
    if (!outcome.ok()) return Fail("replay " + path, std::string(outcome.status().message()));
    outcomes.push_back(*std::move(outcome));
  }
  const std::string report = json ? ReplayJson(*trace, parameters, outcomes) + "\n"
                                  : ReplayTable(*trace, parameters, outcomes);
  std::fputs(report.c_str(), stdout);
  return 0;
}

}  // namespace
}  // namespace postcopy::replay

int main(int argc, char** argv) {
  using namespace postcopy::replay;
  using Microseconds = std::chrono::duration<double, std::micro>;
  CLI::App app(
      "Plays a trace of faults against orders of the bulk: how many faults are left, how long the "
      "guest "
      "waits, what was pushed in time and what in vain.",
      "replay");
  std::string path;
  std::vector<std::string> names;
  double mbit_per_s = 1000, round_trip_us = 100, install_us = 2;
  bool json = false;
  std::vector<std::string> known;
  for (const PolicyKind& policy : AllPolicies()) known.push_back(policy.name);
  app.add_option("trace", path, "The trace, as uffd-server --trace-folder writes it")->required();
  app.add_option("--policy", names, "Only this order; may be repeated (default: all)")
      ->check(CLI::IsMember(known));
  app.add_option("--bandwidth", mbit_per_s, "Of the link, in Mbit/s")
      ->capture_default_str()
      ->check(CLI::Range(0.1, 1e6));
  app.add_option("--round-trip", round_trip_us, "Of the empty link, in microseconds")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e7));
  app.add_option("--install", install_us, "To install a page, in microseconds")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  app.add_flag("--json", json, "Print one JSON object");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kExitUsage;
  }
  const auto time = [](double us) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Microseconds(us));
  };
  return Run(path, names, {mbit_per_s * 1e6 / 8, time(round_trip_us), time(install_us)}, json);
}
