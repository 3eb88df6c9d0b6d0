// Writes a relocation's progress: one line that is redrawn on a terminal, else a line for each
// change of state and about one a second.
//
// Not responsible for what the lines say (progress_view.h).
#pragma once

#include <chrono>
#include <cstdio>
#include <optional>
#include <string_view>

#include "cli/progress_view.h"

namespace postcopy {

struct PrinterOptions {
  std::FILE* out = stdout;
  bool redraw = false;  // `out` is a terminal
  int width = 80;       // columns, used if `redraw`
};

// Lines on stdout, redrawn if that is a terminal as wide as $COLUMNS says (80 if unset); with
// `json`, which takes stdout for its one object, plain lines on stderr.
PrinterOptions PrinterFor(bool json);

// Not thread-safe.
class ProgressPrinter {
 public:
  explicit ProgressPrinter(const PrinterOptions& options) : options_(options) {}

  void Show(const v1::Progress& progress, std::chrono::steady_clock::time_point now);
  // Takes the message, and writes nothing.
  void Note(const v1::Progress& progress) { view_.Add(progress); }
  // A line of its own, in the place of the bar.
  void Say(std::string_view text);
  // Takes the bar away, so that the next line starts at the left.
  void Clear();

  const ProgressView& view() const { return view_; }

 private:
  const PrinterOptions options_;
  ProgressView view_;
  bool bar_shown_ = false;
  std::optional<v1::State> shown_state_;
  std::chrono::steady_clock::time_point shown_at_{};
};

}  // namespace postcopy
