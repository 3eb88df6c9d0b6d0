// A relocation's progress as text: one line that fits a terminal, one plain line, one summary.
//
// Pure: time comes from the messages themselves (elapsed_ms). Writes nothing.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "control/postcopy.pb.h"

namespace postcopy {

// "running", "handed over": a state as people read it.
std::string StateWords(v1::State state);
// "850 us", "12.3 ms", "3.42 s".
std::string DurationText(double us);
// "512 MiB", "1.5 GiB".
std::string MemoryText(uint64_t bytes);

// Every figure of a session as a name and a text with its unit: "data", "1.5 GiB". What is not known
// is said to be so.
std::vector<std::pair<std::string, std::string>> FigureRows(const v1::Progress& progress);

// Not thread-safe.
class ProgressView {
 public:
  // Takes the next message. Rates are taken over the last 2 s of messages; a new session starts
  // them again.
  void Add(const v1::Progress& progress);

  const v1::Progress& last() const { return last_; }
  // Of the data, what is present, rounded down: 100 means all.
  int percent() const;
  // Page content that comes in, in bytes a second. Nothing: not known yet.
  std::optional<double> rate_bytes_per_s() const;
  // Until the last page is there, at the present rate. Nothing: not known.
  std::optional<double> remaining_s() const;

  // At most `width` - 1 columns, so that no terminal wraps it. Its parts keep their places while their
  // figures grow; where there is no room p99 goes first, then the bar itself.
  std::string Bar(int width) const;
  std::string Line() const;
  // What came of it. `total_ms`: from the command to the end.
  std::string Summary(double total_ms) const;

 private:
  struct Sample {
    double elapsed_ms;
    uint64_t moved_bytes;
    uint64_t present_bytes;
  };

  v1::Progress last_;
  std::deque<Sample> samples_;
};

}  // namespace postcopy
