#include "cli/local_daemon.h"

#include <CLI/CLI.hpp>
#include <filesystem>
#include <optional>
#include <system_error>

#include "config/config_file.h"
#include "config/options.h"
#include "core/address.h"

namespace postcopy {
namespace {

// The best of what a daemon listens on, as it is connected to.
std::optional<Address> Nearest(const std::vector<std::string>& listened) {
  std::optional<Address> best;
  for (const std::string& text : listened) {
    auto address = Address::Parse(
        text, {.default_port = kControlPort, .may_be_unix = true, .may_listen = true});
    if (!address.ok()) continue;
    Address here = *address;
    if (here.IsWildcard()) here = here.WithHost(here.IsIpv6() ? "::1" : "127.0.0.1");
    if (!best.has_value() || (here.IsLocalOnly() && !best->IsLocalOnly())) best = here;
  }
  return best;
}

}  // namespace

DaemonChoice ChooseDaemon(const std::string& option, const std::string& environment,
                          const std::string& config_path) {
  if (!option.empty()) return {option, "--daemon"};
  if (!environment.empty()) return {environment, "POSTCOPY_DAEMON"};
  const std::string usual =
      Address::Parse("127.0.0.1", {.default_port = kControlPort})->ToString();
  std::error_code unknown;
  if (!std::filesystem::exists(config_path, unknown)) return {usual, "the default"};
  CLI::App app;
  Options options;
  Declare(app, options);
  app.parse("");
  if (!ReadConfigFile(config_path, app).ok()) {
    return {usual, "the default, since " + config_path + " can't be read"};
  }
  // Without the key it is the daemon's own default.
  if (app.get_option("--listen")->count() == 0) return {usual, "the default"};
  const auto nearest = Nearest(options.listen);
  if (!nearest.has_value()) return {usual, "the default"};
  return {nearest->ToString(), "`listen` in " + config_path};
}

}  // namespace postcopy
