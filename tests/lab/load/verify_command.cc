#include "command.h"
#include "verify_run.h"

namespace postcopy_lab {
namespace {

constexpr char kVerifyHelp[] =
    "Fetch all files once and compare their SHA-256 with that of the seed's content. Prints JSON;\n"
    "exit code 0: all right, 1: some are wrong, 3: they could not be fetched.\n"
    "Example: lab-load-client verify --url-base http://10.77.0.2 --files 4096 --seed 1";

class VerifyCommand final : public Command {
 public:
  explicit VerifyCommand(CLI::App* app);

  int Run() override {
    verify_.server = *ParseUrlBase(target_.url_base);
    verify_.files = target_.files;
    verify_.seed = target_.seed;
    verify_.timeout = std::chrono::milliseconds(timeout_ms_);
    return RunVerify(verify_);
  }

 private:
  Target target_;
  VerifyOptions verify_;
  int64_t timeout_ms_ = verify_.timeout.count();
};

VerifyCommand::VerifyCommand(CLI::App* app) : Command(app) {
  AddTarget(app_, &target_, "of the guest's content");
  app_->add_option("--connections", verify_.connections)
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  app_->add_option("--program", verify_.program,
                   "the content is realistic, with machine code from this file");
  app_->add_option("--timeout-ms", timeout_ms_, "give up after so long without a finished file")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
}

}  // namespace

std::unique_ptr<Command> AddVerifyCommand(CLI::App& app) {
  return std::make_unique<VerifyCommand>(app.add_subcommand("verify", kVerifyHelp));
}

}  // namespace postcopy_lab
