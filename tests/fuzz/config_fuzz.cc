// The daemon's configuration file, of any content. What is accepted keeps within what the options
// allow, and what may not stand in the file is not set by it.
#include <cstdlib>

#include "config/config_file.h"
#include "config/options.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void Read(std::string_view text) {
  CLI::App app;
  Options options;
  Declare(app, options);
  app.parse("");
  const absl::Status applied = ApplyConfig(text, "file", app);
  Require(options.config_file.empty() && options.faults.empty());
  if (!applied.ok()) {
    Require(absl::IsInvalidArgument(applied));
    Require(std::string_view(applied.message().data(), applied.message().size())
                .starts_with("read file, line "));
    return;
  }
  Require(!options.listen.empty());
  Require(options.bulk_lanes >= 1 && options.bulk_lanes <= 16);
  bool known = false;
  for (const char* level : {"trace", "debug", "info", "warn", "err", "off"}) {
    known = known || options.log_level == level;
  }
  Require(known);
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postcopy::Read(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
