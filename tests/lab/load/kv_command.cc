#include "command.h"
#include "kv_run.h"

namespace postcopy_lab {
namespace {

constexpr int kMemcachedPort = 11211;

constexpr char kKvHelp[] =
    "Fill a memcached, then send get and set over kept-open connections as `run` does, and verify\n"
    "each value: it is a function of seed, key and version. Keys k0, k1, … have values of 1 to 4\n"
    "KiB. Prints `started` with the first response after the filling. The JSON is that of `run`\n"
    "and has besides:\n"
    "  wrong_values   failed requests, too: gets whose value was missing, wrong, or older than\n"
    "                 what had been stored before\n"
    "  keys           how many there are\n"
    "Example: lab-load-client kv --server 10.77.0.2 --values-mib 256 --output load.json";

class KvCommand final : public Command {
 public:
  explicit KvCommand(CLI::App* app);

  int Run() override {
    kv_.server = *ParseServer(server_, kMemcachedPort);
    kv_.loop = loop_.Options();
    return RunKv(kv_);
  }

 private:
  std::string server_;
  KvOptions kv_;
  LoopInput loop_;
};

KvCommand::KvCommand(CLI::App* app) : Command(app) {
  app_->add_option("--server", server_, "the memcached, ADDRESS[:PORT]")
      ->required()
      ->check([](const std::string& text) {
        return ParseServer(text, kMemcachedPort) ? std::string() : text + " is not ADDRESS[:PORT]";
      });
  app_->add_option("--values-mib", kv_.values_mib, "all values together, about")
      ->capture_default_str()
      ->check(CLI::Range(1, 65536));
  app_->add_option("--seed", kv_.seed, "of the values and of the order of requests")
      ->capture_default_str();
  app_->add_option("--zipf", kv_.exponent,
                   "the n-th most frequent key has a share of 1/n^ZIPF; 0: all are equal")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 10.0));
  app_->add_option("--set-percent", kv_.set_percent, "of the requests; the others are gets")
      ->capture_default_str()
      ->check(CLI::Range(0, 100));
  AddLoop(app_, &loop_);
}

}  // namespace

std::unique_ptr<Command> AddKvCommand(CLI::App& app) {
  return std::make_unique<KvCommand>(app.add_subcommand("kv", kKvHelp));
}

}  // namespace postcopy_lab
