#include "config/typing.h"

#include <algorithm>

namespace postcopy {
namespace {

constexpr size_t kMostMistakes = 2;

// Letters to replace, add, remove or swap (two neighbours) to make one of the other.
size_t Distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> best(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        best[i][j] = i + j;
        continue;
      }
      const size_t replaced = best[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      best[i][j] = std::min({best[i - 1][j] + 1, best[i][j - 1] + 1, replaced});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) best[i][j] = std::min(best[i][j], best[i - 2][j - 2] + 1);
    }
  }
  return best[a.size()][b.size()];
}

std::vector<std::string> CommandNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands(nullptr)) names.push_back(command->get_name());
  return names;
}

const CLI::Option* Find(const CLI::App& app, const std::string& name) {
  const auto options = app.get_options();
  const auto found = std::find_if(options.begin(), options.end(), [&](const CLI::Option* option) {
    return option->check_name(name);
  });
  return found == options.end() ? nullptr : *found;
}

}  // namespace

std::string Nearest(std::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest;
  size_t mistakes = std::min(kMostMistakes, word.size() / 3) + 1;
  if (word.size() > 64) return nearest;
  for (const std::string& candidate : candidates) {
    const size_t distance = Distance(word, candidate);
    if (distance >= mistakes) continue;
    mistakes = distance;
    nearest = candidate;
  }
  return nearest;
}

std::string Suggestion(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string nearest = Nearest(word, candidates);
  return nearest.empty() ? "" : ", did you mean " + nearest + "?";
}

std::vector<std::string> OptionNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::optional<std::string> UnknownWord(const CLI::App& app, const std::vector<std::string>& words) {
  const CLI::App* command = nullptr;
  const auto commands = CommandNames(app);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word == "--") return std::nullopt;
    if (word.size() > 1 && word[0] == '-') {
      const size_t equals = word.find('=');
      const std::string name = word.substr(0, equals);
      const CLI::Option* option = Find(app, name);
      if (option == nullptr && command != nullptr) option = Find(*command, name);
      if (option == nullptr) {
        auto known = OptionNames(app);
        if (command != nullptr) {
          const auto own = OptionNames(*command);
          known.insert(known.end(), own.begin(), own.end());
        }
        return (command == nullptr ? "" : command->get_name() + ": ") + "there is no option " + name +
               Suggestion(name, known);
      }
      // Its value is the next word.
      if (option->get_expected_min() > 0 && equals == std::string::npos) ++i;
    } else if (command == nullptr && !commands.empty()) {
      for (const CLI::App* each : app.get_subcommands(nullptr)) {
        if (each->check_name(word)) command = each;
      }
      if (command == nullptr) return "there is no command " + word + Suggestion(word, commands);
    }
  }
  return std::nullopt;
}

}  // namespace postcopy
