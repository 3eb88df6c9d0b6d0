#include "command.h"
#include "load_run.h"

namespace postcopy_lab {
namespace {

constexpr char kRunHelp[] =
    "Send requests over kept-open connections, without retries, until SIGTERM, SIGINT or "
    "--seconds.\n"
    "Prints `started` with the first response and writes one JSON object at the end:\n"
    "  start_ms, end_ms          of the run, since the epoch (CLOCK_REALTIME), as all times\n"
    "  finished_requests         with status 200 and the right length\n"
    "  failed_requests, failures all others, and the first 20 of them: time_ms, path, cause\n"
    "  lost_connections          that broke or were closed after they stood\n"
    "  unfinished_requests, oldest_unfinished_ms   on their way at the end\n"
    "  longest_gap_ms, longest_gap_start_ms        without any finished request\n"
    "  latency_p50_us, latency_p99_us, latency_max_us\n"
    "  windows                   one for each 100 ms: start_ms, count, p50_us, max_us, gap_us "
    "(the\n"
    "                            longest gap that ended in it)\n"
    "Example: lab-load-client run --url-base http://10.77.0.2 --files 4096 --output load.json";

class RunCommand final : public Command {
 public:
  explicit RunCommand(CLI::App* app) : Command(app) {
    AddTarget(app_, &target_, "of the order in which files are asked for");
    AddLoop(app_, &loop_);
  }

  int Run() override {
    return RunLoad({.server = *ParseUrlBase(target_.url_base),
                    .loop = loop_.Options(),
                    .files = target_.files,
                    .seed = target_.seed});
  }

 private:
  Target target_;
  LoopInput loop_;
};

}  // namespace

std::unique_ptr<Command> AddRunCommand(CLI::App& app) {
  return std::make_unique<RunCommand>(app.add_subcommand("run", kRunHelp));
}

}  // namespace postcopy_lab
