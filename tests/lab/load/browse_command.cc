#include "browse_run.h"
#include "command.h"
#include "web_mix.h"

namespace postcopy_lab {
namespace {

constexpr char kBrowseHelp[] =
    "Visit the guest's web site, without retries, until SIGTERM, SIGINT or --seconds: sessions of\n"
    "pages with what they embed and time to think between them. Each byte that comes is checked.\n"
    "Prints `started` and writes JSON as `run` does (without connections), and\n"
    "  mix, sessions, sessions_turned_away   visitors who came, and who found no place\n"
    "  pages                     each with type, download (whether it is one), start_ms,\n"
    "                            duration_ms, bytes, outcome: finished, failed or unfinished\n"
    "Example: lab-load-client browse --url-base http://10.77.0.2 --mix banking --directories 16";

class BrowseCommand final : public Command {
 public:
  explicit BrowseCommand(CLI::App* app);

  int Run() override {
    options_.server = *ParseUrlBase(url_base_);
    options_.think = std::chrono::milliseconds(think_ms_);
    options_.duration = ending_.duration();
    options_.output = ending_.output;
    return RunBrowse(options_);
  }

 private:
  BrowseOptions options_;
  std::string url_base_;
  int64_t think_ms_ = options_.think.count();
  Ending ending_;
};

BrowseCommand::BrowseCommand(CLI::App* app) : Command(app) {
  AddUrlBase(app_, &url_base_);
  app_->add_option("--mix", options_.mix, "banking, ecommerce or support")
      ->required()
      ->check([](const std::string& name) {
        return WebMixOf(name) ? std::string() : name + " is not banking, ecommerce or support";
      });
  app_->add_option("--directories", options_.directories, "of the guest's site (web_dirs)")
      ->required()
      ->check(CLI::PositiveNumber);
  app_->add_option("--sessions", options_.sessions, "closed loop: visitors at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, kMaxVisitors));
  app_->add_option("--arrivals-per-s", options_.arrivals_per_s,
                   "open loop: visitors come at random at this rate; 0: closed loop")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app_->add_option("--think-ms", think_ms_, "mean, exponentially distributed")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app_->add_option("--page-line", options_.page_line_bytes_per_s,
                   "bytes/s over a visitor's connection; 0: no limit")
      ->capture_default_str();
  app_->add_option("--download-line", options_.download_line_bytes_per_s, "the same for downloads")
      ->capture_default_str();
  app_->add_option("--content-seed", options_.content_seed, "of the guest's content")
      ->capture_default_str();
  app_->add_option("--seed", options_.seed, "of the visitors")->capture_default_str();
  AddEnding(app_, &ending_);
}

}  // namespace

std::unique_ptr<Command> AddBrowseCommand(CLI::App& app) {
  return std::make_unique<BrowseCommand>(app.add_subcommand("browse", kBrowseHelp));
}

}  // namespace postcopy_lab
