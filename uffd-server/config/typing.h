// What a command line or a configuration file says that no program knows, and what was meant in all
// likelihood. Pure.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace postcopy {

// The candidate that `word` is most like: at most two letters are wrong, missing, too many or swapped,
// and not more than a third of it. Empty: none.
std::string Nearest(std::string_view word, const std::vector<std::string>& candidates);

// ", did you mean X?", or nothing.
std::string Suggestion(std::string_view word, const std::vector<std::string>& candidates);

// The options of `app` that a user may type, with their dashes.
std::vector<std::string> OptionNames(const CLI::App& app);

// The first of `words`, a command line without the program, that is neither a command nor an option of
// `app` or of the command before it, as a complaint that names it: what CLI11 would complain about
// last. Words behind the command that are no options are not looked at. Nothing: there is none.
std::optional<std::string> UnknownWord(const CLI::App& app, const std::vector<std::string>& words);

}  // namespace postcopy
