#include "cli/progress_printer.h"

#include <unistd.h>

#include <cstdlib>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace postcopy {
namespace {

constexpr std::chrono::milliseconds kBetweenLines{950};  // about 1 s, with messages every 500 ms
constexpr int kNarrowest = 20;
constexpr const char* kEraseLine = "\r\x1b[K";

}  // namespace

PrinterOptions PrinterFor(bool json) {
  PrinterOptions options;
  options.out = json ? stderr : stdout;
  options.redraw = !json && isatty(fileno(stdout)) == 1;
  int columns = 0;
  const char* text = std::getenv("COLUMNS");
  if (text != nullptr && absl::SimpleAtoi(text, &columns) && columns >= kNarrowest) {
    options.width = columns;
  }
  return options;
}

void ProgressPrinter::Show(const v1::Progress& progress,
                           std::chrono::steady_clock::time_point now) {
  view_.Add(progress);
  if (options_.redraw) {
    absl::FPrintF(options_.out, "%s%s", kEraseLine, view_.Bar(options_.width));
    std::fflush(options_.out);
    bar_shown_ = true;
    return;
  }
  if (shown_state_ == progress.state() && now - shown_at_ < kBetweenLines) return;
  shown_state_ = progress.state();
  shown_at_ = now;
  Say(view_.Line());
}

void ProgressPrinter::Say(std::string_view text) {
  Clear();
  absl::FPrintF(options_.out, "%s\n", text);
  std::fflush(options_.out);
}

void ProgressPrinter::Clear() {
  if (bar_shown_) absl::FPrintF(options_.out, "%s", kEraseLine);
  bar_shown_ = false;
}

}  // namespace postcopy
