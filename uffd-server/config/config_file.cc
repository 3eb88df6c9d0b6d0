#include "config/config_file.h"

#include <toml++/toml.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "config/typing.h"

namespace postcopy {
namespace {

enum class Takes { kSwitch, kNumber, kText, kTexts };

Takes WhatItTakes(const CLI::Option& option) {
  if (option.get_expected_min() == 0) return Takes::kSwitch;
  if (absl::StartsWith(option.get_type_name(), "UINT")) return Takes::kNumber;
  return option.get_expected_max() > 1 ? Takes::kTexts : Takes::kText;
}

const char* Named(Takes takes) {
  switch (takes) {
    case Takes::kSwitch: return "true or false";
    case Takes::kNumber: return "a whole number";
    case Takes::kText: return "a string";
    case Takes::kTexts: return "a string or an array of strings, not empty";
  }
  return "";
}

// The value as the command line would have it; nothing if it is of another type.
std::optional<std::vector<std::string>> WordsOf(const toml::node& value, Takes takes) {
  std::vector<std::string> words;
  const auto truth = value.value_exact<bool>();
  const auto number = value.value_exact<int64_t>();
  const auto text = value.value_exact<std::string>();
  const toml::array* texts = value.as_array();
  if (takes == Takes::kSwitch && truth) words.push_back(*truth ? "true" : "false");
  if (takes == Takes::kNumber && number) words.push_back(std::to_string(*number));
  if ((takes == Takes::kText || takes == Takes::kTexts) && text) words.push_back(*text);
  if (takes == Takes::kTexts && texts != nullptr) {
    for (const toml::node& entry : *texts) {
      const auto one = entry.value_exact<std::string>();
      if (!one) return std::nullopt;
      words.push_back(*one);
    }
  }
  if (words.empty()) return std::nullopt;
  return words;
}

absl::Status Apply(CLI::App& app, const std::string& key, const toml::node& value) {
  const std::string name = "--" + key;
  CLI::Option* option = app.get_option_no_throw(name);
  if (option == nullptr || !option->get_configurable()) {
    std::vector<std::string> keys;
    for (const CLI::Option* known : app.get_options()) {
      if (!known->get_configurable()) continue;
      for (const std::string& long_name : known->get_lnames()) keys.push_back(long_name);
    }
    return absl::InvalidArgumentError("there is no such key" + Suggestion(key, keys));
  }
  const Takes takes = WhatItTakes(*option);
  const auto words = WordsOf(value, takes);
  if (!words) return absl::InvalidArgumentError(absl::StrCat("must be ", Named(takes)));
  if (option->count() > 0) return absl::OkStatus();  // the command line wins
  try {
    option->add_result(*words);
    option->run_callback();
  } catch (const CLI::ParseError& error) {
    const std::string cause = error.what();
    return absl::InvalidArgumentError(absl::StripPrefix(cause, name + ": "));
  }
  return absl::OkStatus();
}

// errno's own words, as the cause of a failed read.
absl::Status CannotRead(const std::string& path, int error) {
  return absl::InvalidArgumentError(
      absl::StrCat("read ", path, ": ", std::generic_category().message(error)));
}

}  // namespace

absl::Status ReadConfigFile(const std::string& path, CLI::App& app) {
  std::ifstream file(path);
  if (!file) return CannotRead(path, errno);
  std::ostringstream text;
  // An empty file fails the copy, but it is no bad file.
  if (file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (file.bad()) return CannotRead(path, errno);
  return ApplyConfig(text.str(), path, app);
}

absl::Status ApplyConfig(std::string_view text, const std::string& path, CLI::App& app) {
  toml::table table;
  try {
    table = toml::parse(text, path);
  } catch (const toml::parse_error& error) {
    return absl::InvalidArgumentError(absl::StrCat("read ", path, ", line ",
                                                   error.source().begin.line, ": ",
                                                   std::string(error.description())));
  }
  for (const auto& [key, value] : table) {
    const std::string name(key.str());
    const absl::Status applied = Apply(app, name, value);
    if (!applied.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("read ", path, ", line ",
                                                     key.source().begin.line, ", key ", name, ": ",
                                                     applied.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace postcopy
