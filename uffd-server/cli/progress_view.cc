#include "cli/progress_view.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"

namespace postcopy {
namespace {

constexpr double kRateOverMs = 2000;
constexpr double kLongestRemainingS = 1e9;  // what would take longer is not known any better
constexpr double kLongestClockS = 359'999;
constexpr int kShortestBar = 10;
constexpr int kLongestBar = 40;

double Megabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

uint64_t MovedBytes(const v1::Progress& progress) {
  return progress.demand_bytes() + progress.bulk_bytes();
}

std::string FaultText(const v1::Progress& progress) {
  if (!progress.has_faults()) return "faults not known";
  if (!progress.has_fault_p99_us()) return absl::StrFormat("%d faults", progress.faults());
  return absl::StrFormat("%d faults, p99 %s", progress.faults(),
                         DurationText(progress.fault_p99_us()));
}

std::string RemainingText(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(std::min(kLongestRemainingS, seconds)));
  if (whole < 60) return absl::StrFormat("%d s", whole);
  return absl::StrFormat("%d min %d s", whole / 60, whole % 60);
}

// "0:02", "59:59", "2:00:00": as short as it can be.
std::string ClockText(double seconds) {
  const auto whole = static_cast<int64_t>(std::ceil(std::min(kLongestClockS, seconds)));
  if (whole < 3600) return absl::StrFormat("%d:%02d", whole / 60, whole % 60);
  return absl::StrFormat("%d:%02d:%02d", whole / 3600, whole / 60 % 60, whole % 60);
}

// Local time of the terminal, to the millisecond.
std::string TimeText(int64_t us) {
  return absl::FormatTime("%Y-%m-%d %H:%M:%E3S", absl::FromUnixMicros(us), absl::LocalTimeZone());
}

// Its own words if the session says why it ended.
std::string WithReason(std::string text, const v1::Progress& progress) {
  if (!progress.error().empty()) absl::StrAppend(&text, ": ", progress.error());
  return text;
}

std::string Figures(const v1::Progress& progress) {
  std::string text = progress.has_downtime_ms()
                         ? absl::StrFormat("downtime %.1f ms", progress.downtime_ms())
                         : "downtime not known here";
  if (!progress.has_faults()) return text;
  absl::StrAppendFormat(&text, ", %d faults", progress.faults());
  if (progress.has_fault_p99_us()) {
    absl::StrAppendFormat(&text, " (p50 %s, p99 %s)", DurationText(progress.fault_p50_us()),
                          DurationText(progress.fault_p99_us()));
  }
  return absl::StrCat(text, absl::StrFormat(", %.1f MB moved, %.1f MB of it on demand",
                                            Megabytes(MovedBytes(progress)),
                                            Megabytes(progress.demand_bytes())));
}

}  // namespace

std::string StateWords(v1::State state) {
  std::string words = v1::State_Name(state);
  if (words.empty()) return "unknown to this version";
  words.erase(0, std::string("STATE_").size());
  absl::AsciiStrToLower(&words);
  return absl::StrReplaceAll(words, {{"_", " "}});
}

std::string DurationText(double us) {
  if (us < 1e3) return absl::StrFormat("%.0f us", us);
  if (us < 1e6) return absl::StrFormat("%.1f ms", us / 1e3);
  return absl::StrFormat("%.2f s", us / 1e6);
}

std::string MemoryText(uint64_t bytes) {
  const double mib = static_cast<double>(bytes) / (1 << 20);
  return mib < 1024 ? absl::StrFormat("%.4g MiB", mib) : absl::StrFormat("%.4g GiB", mib / 1024);
}

std::vector<std::pair<std::string, std::string>> FigureRows(const v1::Progress& progress) {
  const std::string unknown = "not known";
  std::vector<std::pair<std::string, std::string>> rows;
  const auto add = [&](const char* name, bool known, const std::string& text) {
    rows.emplace_back(name, known ? text : unknown);
  };
  const auto words = [&](const char* name, const std::string& text) {
    rows.emplace_back(name, text.empty() ? "-" : text);
  };
  const auto ms = [](double value) { return DurationText(value * 1e3); };
  words("VM", progress.vm());
  words("session", progress.session());
  words("state", StateWords(progress.state()));
  words("this host is", progress.role().empty() ? "" : "the " + progress.role());
  words("other host", progress.peer());
  words("error", progress.error());
  add("RAM", progress.ram_bytes() != 0, MemoryText(progress.ram_bytes()));
  add("data", progress.has_data_bytes(), MemoryText(progress.data_bytes()));
  add("present", progress.has_present_bytes(), MemoryText(progress.present_bytes()));
  add("on demand", progress.has_demand_bytes(), MemoryText(progress.demand_bytes()));
  add("in bulk", progress.has_bulk_bytes(), MemoryText(progress.bulk_bytes()));
  add("zero pages", progress.has_zero_pages(), absl::StrCat(progress.zero_pages()));
  add("discarded pages", progress.has_discarded_pages(), absl::StrCat(progress.discarded_pages()));
  add("faults", progress.has_faults(), absl::StrCat(progress.faults()));
  add("fault p50", progress.has_fault_p50_us(), DurationText(progress.fault_p50_us()));
  add("fault p99", progress.has_fault_p99_us(), DurationText(progress.fault_p99_us()));
  add("fault p99.9", progress.has_fault_p999_us(), DurationText(progress.fault_p999_us()));
  add("fault max", progress.has_fault_max_us(), DurationText(progress.fault_max_us()));
  add("interruptions", progress.has_interruptions(), absl::StrCat(progress.interruptions()));
  add("downtime", progress.has_downtime_ms(), ms(progress.downtime_ms()));
  add("since prepare", true, ms(progress.elapsed_ms()));
  add("since resume", progress.has_after_switch_ms(), ms(progress.after_switch_ms()));
  add("stopped at", progress.has_stopped_at_us(), TimeText(progress.stopped_at_us()));
  add("resumed at", progress.has_resumed_at_us(), TimeText(progress.resumed_at_us()));
  add("committed at", progress.has_committed_at_us(), TimeText(progress.committed_at_us()));
  return rows;
}

void ProgressView::Add(const v1::Progress& progress) {
  if (progress.session() != last_.session()) samples_.clear();
  last_ = progress;
  samples_.push_back({progress.elapsed_ms(), MovedBytes(progress), progress.present_bytes()});
  while (samples_.size() > 2 && samples_[1].elapsed_ms < progress.elapsed_ms() - kRateOverMs) {
    samples_.pop_front();
  }
}

int ProgressView::percent() const {
  if (last_.state() == v1::STATE_COMMITTED) return 100;
  if (last_.data_bytes() == 0) return 0;
  const double share =
      static_cast<double>(last_.present_bytes()) / static_cast<double>(last_.data_bytes());
  return static_cast<int>(std::min(100.0, share * 100));
}

std::optional<double> ProgressView::rate_bytes_per_s() const {
  if (samples_.size() < 2) return std::nullopt;
  const Sample& first = samples_.front();
  const Sample& end = samples_.back();
  if (end.elapsed_ms <= first.elapsed_ms || end.moved_bytes < first.moved_bytes) {
    return std::nullopt;
  }
  return static_cast<double>(end.moved_bytes - first.moved_bytes) * 1000 /
         (end.elapsed_ms - first.elapsed_ms);
}

std::optional<double> ProgressView::remaining_s() const {
  if (samples_.size() < 2 || last_.state() != v1::STATE_RUNNING) return std::nullopt;
  const Sample& first = samples_.front();
  const Sample& end = samples_.back();
  if (end.elapsed_ms <= first.elapsed_ms || end.present_bytes <= first.present_bytes) {
    return std::nullopt;
  }
  const uint64_t left = last_.data_bytes() - std::min(last_.data_bytes(), last_.present_bytes());
  return static_cast<double>(left) / static_cast<double>(end.present_bytes - first.present_bytes) *
         (end.elapsed_ms - first.elapsed_ms) / 1000;
}

std::string ProgressView::Bar(int width) const {
  const bool waits = last_.state() == v1::STATE_RUNNING && !last_.error().empty();
  const std::string before =
      absl::StrFormat("%s %s ", last_.vm(), waits ? "waits for its source" : StateWords(last_.state()));
  const auto rate = rate_bytes_per_s();
  const auto left = remaining_s();
  const std::string after = absl::StrFormat(
      "%3d %%  %11s  %6d faults", percent(),
      rate.has_value() ? absl::StrFormat("%.1f MB/s", *rate / 1e6) : "", last_.faults());
  const std::string p99 = absl::StrFormat(
      "  %11s",
      last_.has_fault_p99_us() ? absl::StrCat("p99 ", DurationText(last_.fault_p99_us())) : "");
  const std::string eta =
      absl::StrFormat("  %11s", left.has_value() ? absl::StrCat("ETA ", ClockText(*left)) : "");
  const int columns = std::max(0, width - 1);
  const auto room_beside = [&](const std::string& more) {
    return columns - static_cast<int>(before.size() + after.size() + more.size() + eta.size()) - 3;
  };
  const bool with_p99 = room_beside(p99) >= kShortestBar;
  const int room = room_beside(with_p99 ? p99 : "");
  std::string line = before;
  if (room >= kShortestBar) {
    const int cells = std::min(room, kLongestBar);
    const int full = cells * percent() / 100;
    absl::StrAppend(&line, "[", std::string(static_cast<size_t>(full), '='),
                    std::string(static_cast<size_t>(cells - full), ' '), "] ");
  }
  absl::StrAppend(&line, after, with_p99 ? p99 : "", eta);
  if (line.size() > static_cast<size_t>(columns)) line.resize(static_cast<size_t>(columns));
  return line;
}

std::string ProgressView::Line() const {
  std::string line = absl::StrFormat("%s: %s", last_.vm(), StateWords(last_.state()));
  if (last_.state() != v1::STATE_RUNNING && last_.state() != v1::STATE_COMMITTED) {
    if (last_.state() == v1::STATE_PREPARED) {
      absl::StrAppend(&line, ", the VM runs at its source until `switch` or `cancel`");
    }
    return WithReason(std::move(line), last_);
  }
  if (!last_.has_data_bytes()) {
    absl::StrAppend(&line, ", how much memory is to come is not known yet");
  } else {
    absl::StrAppendFormat(&line, ", %d %% of %s present", percent(), MemoryText(last_.data_bytes()));
  }
  if (const auto rate = rate_bytes_per_s()) {
    absl::StrAppendFormat(&line, ", %.1f MB/s", *rate / 1e6);
  }
  absl::StrAppend(&line, ", ", FaultText(last_));
  if (const auto left = remaining_s()) {
    absl::StrAppendFormat(&line, ", %s left", RemainingText(*left));
  }
  return WithReason(std::move(line), last_);
}

std::string ProgressView::Summary(double total_ms) const {
  switch (last_.state()) {  // open: a newer daemon may know more states
    case v1::STATE_COMMITTED:
      return absl::StrFormat("%s: relocated in %s: %s", last_.vm(), DurationText(total_ms * 1e3),
                             Figures(last_));
    case v1::STATE_HANDED_OVER:
    case v1::STATE_RUNNING:
      return absl::StrFormat("%s: switched after %s, %d %% of its memory has arrived: %s",
                             last_.vm(), DurationText(total_ms * 1e3), percent(), Figures(last_));
    default:
      return WithReason(absl::StrFormat("%s: %s", last_.vm(), StateWords(last_.state())), last_);
  }
}

}  // namespace postcopy
