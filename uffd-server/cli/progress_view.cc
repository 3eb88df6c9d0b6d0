#include "cli/progress_view.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"

namespace postcopy {
namespace {

constexpr double kRateOverMs = 2000;
constexpr double kLongestRemainingS = 1e9;  // what would take longer is not known any better
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
  std::string after = absl::StrFormat("%3d %%", percent());
  if (const auto rate = rate_bytes_per_s()) {
    absl::StrAppendFormat(&after, "  %.1f MB/s", *rate / 1e6);
  }
  absl::StrAppend(&after, "  ", FaultText(last_));
  if (const auto left = remaining_s()) absl::StrAppend(&after, "  ETA ", RemainingText(*left));
  const int columns = std::max(0, width - 1);
  const int room = columns - static_cast<int>(before.size() + after.size()) - 3;  // "[] "
  std::string line = before;
  if (room >= kShortestBar) {
    const int cells = std::min(room, kLongestBar);
    const int full = cells * percent() / 100;
    absl::StrAppend(&line, "[", std::string(static_cast<size_t>(full), '='),
                    std::string(static_cast<size_t>(cells - full), ' '), "] ");
  }
  absl::StrAppend(&line, after);
  if (line.size() > static_cast<size_t>(columns)) line.resize(static_cast<size_t>(columns));
  return line;
}

std::string ProgressView::Line() const {
  std::string line = absl::StrFormat("%s: %s", last_.vm(), StateWords(last_.state()));
  if (last_.state() != v1::STATE_RUNNING && last_.state() != v1::STATE_COMMITTED) {
    return WithReason(std::move(line), last_);
  }
  if (last_.data_bytes() == 0) {
    absl::StrAppend(&line, ", asking what there is to bring");
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
