// lab-load-client: the traffic of the lab. This file is the command line only; see load_run.h and
// kv_run.h for the loads and verify_run.h for the check of the guest's files.
#include <CLI/CLI.hpp>
#include <chrono>
#include <string>

#include "kv_run.h"
#include "load_run.h"
#include "verify_run.h"

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
constexpr char kKvHelp[] =
    "Fill a memcached, then send get and set over kept-open connections as `run` does, and verify\n"
    "each value: it is a function of seed, key and version. Keys k0, k1, … have values of 1 to 4\n"
    "KiB. Prints `started` with the first response after the filling. The JSON is that of `run`\n"
    "and has besides:\n"
    "  wrong_values   failed requests, too: gets whose value was missing, wrong, or older than\n"
    "                 what had been stored before\n"
    "  keys           how many there are\n"
    "Example: lab-load-client kv --server 10.77.0.2 --values-mib 256 --output load.json";
constexpr char kVerifyHelp[] =
    "Fetch all files once and compare their SHA-256 with that of the seed's content. Prints JSON;\n"
    "exit code 0: all right, 1: some are wrong, 3: they could not be fetched.\n"
    "Example: lab-load-client verify --url-base http://10.77.0.2 --files 4096 --seed 1";

constexpr int kMemcachedPort = 11211;

// What the subcommands for the guest's files take.
struct Target {
  std::string url_base;
  uint64_t files = 4096;
  uint64_t seed = 1;
};

void AddTarget(CLI::App* command, Target* target, const char* seed_help) {
  command->add_option("--url-base", target->url_base, "the guest, http://ADDRESS[:PORT]")
      ->required()
      ->check([](const std::string& url) {
        return postcopy_lab::ParseUrlBase(url) ? std::string()
                                               : url + " is not http://ADDRESS[:PORT]";
      });
  command->add_option("--files", target->files, "the guest's files, /f/0 to /f/FILES-1")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--seed", target->seed, seed_help)->capture_default_str();
}

// What both loads take.
struct LoopInput {
  postcopy_lab::LoopOptions loop;
  int64_t think_ms = loop.think.count();
  int64_t timeout_ms = 0;
  double seconds = 0;

  postcopy_lab::LoopOptions Options() const {
    postcopy_lab::LoopOptions options = loop;
    options.think = std::chrono::milliseconds(think_ms);
    options.timeout = std::chrono::milliseconds(timeout_ms);
    options.duration = std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
    return options;
  }
};

void AddLoop(CLI::App* command, LoopInput* input) {
  command->add_option("--connections", input->loop.connections)
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--think-ms", input->think_ms,
                   "from a response to the next request on its connection")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--timeout-ms", input->timeout_ms,
                   "a request older than that has failed; 0: never")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--seconds", input->seconds, "length of the run; 0: until SIGTERM or SIGINT")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--output", input->loop.output,
                      "file for the JSON; default: standard output");
}

void AddKv(CLI::App* command, std::string* server, postcopy_lab::KvOptions* kv) {
  command->add_option("--server", *server, "the memcached, ADDRESS[:PORT]")
      ->required()
      ->check([](const std::string& text) {
        return postcopy_lab::ParseServer(text, kMemcachedPort) ? std::string()
                                                               : text + " is not ADDRESS[:PORT]";
      });
  command->add_option("--values-mib", kv->values_mib, "all values together, about")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  command->add_option("--seed", kv->seed, "of the values and of the order of requests")
      ->capture_default_str();
  command
      ->add_option("--zipf", kv->exponent,
                   "the n-th most frequent key has a share of 1/n^ZIPF; 0: all are equal")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 10.0));
  command->add_option("--set-percent", kv->set_percent, "of the requests; the others are gets")
      ->capture_default_str()
      ->check(CLI::Range(0, 100));
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "The lab's load client: closed-loop HTTP and key-value load, and a check of what a guest "
      "serves.");
  app.require_subcommand(1);

  Target target;
  postcopy_lab::LoadOptions load;
  LoopInput loop;
  CLI::App* run = app.add_subcommand("run", kRunHelp);
  AddTarget(run, &target, "of the order in which files are asked for");
  AddLoop(run, &loop);

  std::string kv_server;
  postcopy_lab::KvOptions kv;
  CLI::App* key_value = app.add_subcommand("kv", kKvHelp);
  AddKv(key_value, &kv_server, &kv);
  AddLoop(key_value, &loop);

  postcopy_lab::VerifyOptions verify;
  int64_t give_up_ms = verify.timeout.count();
  CLI::App* check = app.add_subcommand("verify", kVerifyHelp);
  AddTarget(check, &target, "of the guest's content");
  check->add_option("--connections", verify.connections)
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  check->add_option("--program", verify.program,
                    "the content is realistic, with machine code from this file");
  check->add_option("--timeout-ms", give_up_ms, "give up after so long without a finished file")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (run->parsed()) {
    load.server = *postcopy_lab::ParseUrlBase(target.url_base);
    load.files = target.files;
    load.seed = target.seed;
    load.loop = loop.Options();
    return postcopy_lab::RunLoad(load);
  }
  if (key_value->parsed()) {
    kv.server = *postcopy_lab::ParseServer(kv_server, kMemcachedPort);
    kv.loop = loop.Options();
    return postcopy_lab::RunKv(kv);
  }
  verify.server = *postcopy_lab::ParseUrlBase(target.url_base);
  verify.files = target.files;
  verify.seed = target.seed;
  verify.timeout = std::chrono::milliseconds(give_up_ms);
  return postcopy_lab::RunVerify(verify);
}
