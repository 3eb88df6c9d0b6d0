// The daemon's configuration file: TOML, `name = value`, one for each option of the command line
// that may stand there, without its dashes.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace postcopy {

// Sets what the file says in those options of `app` that the command line has not set.
//
// A switch is true or false, a number a whole number, a text a string, and what may be repeated a
// string or an array of strings.
//   kInvalidArgument  the file can't be read or is no TOML; or the first key, in alphabetical order,
//                     that is no option or has a value that its option does not take. Names the
//                     file and, if they are known, line and key. What came before it is set
// REQUIRES: `app` has parsed its command line.
absl::Status ReadConfigFile(const std::string& path, CLI::App& app);

// The same of a file's content; `path` stands in messages only.
absl::Status ApplyConfig(std::string_view text, const std::string& path, CLI::App& app);

}  // namespace postcopy
