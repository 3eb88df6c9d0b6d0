#include "browse_run.h"

#include <algorithm>
#include <iostream>
#include <memory>
#include <vector>

#include "real_clock.h"
#include "report_file.h"
#include "visitor.h"

namespace postcopy_lab {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::duration_cast;
using std::chrono::milliseconds;
using Seconds = std::chrono::duration<double>;

class BrowseLoop {
 public:
  explicit BrowseLoop(const BrowseOptions& options)
      : options_(options),
        site_{.mix = *WebMixOf(options.mix),
              .server = options.server,
              .content_seed = options.content_seed,
              .files = FileChoice(options.directories),
              .think = options.think,
              .page_line_bytes_per_s = options.page_line_bytes_per_s,
              .download_line_bytes_per_s = options.download_line_bytes_per_s,
              .random = Random(options.seed),
              .accounts = AccountBook(options.content_seed),
              .requests = TimingLog(RealNow()),
              .pages = {},
              .poll = {}} {}

  int Run();

 private:
  bool open_loop() const { return options_.arrivals_per_s > 0; }
  void Arrive(Clock::time_point when);
  void Replace(Clock::time_point now);
  Clock::time_point NextAct(Clock::time_point now) const;
  nlohmann::json Report(RealTime end) const;

  const BrowseOptions options_;
  WebSite site_;
  std::vector<std::unique_ptr<Visitor>> visitors_;
  Clock::time_point next_arrival_ = Clock::time_point::max();
  uint64_t arrived_ = 0;
  uint64_t turned_away_ = 0;
};

int BrowseLoop::Run() {
  if (const std::string problem = site_.poll.Open(); !problem.empty()) {
    std::cerr << "lab-load-client: " << problem << "\n";
    return 1;
  }
  const Clock::time_point begin = Clock::now();
  const Clock::time_point end =
      options_.duration.count() > 0 ? begin + options_.duration : Clock::time_point::max();
  if (open_loop()) {
    next_arrival_ = begin;
  } else {
    // The first ones come spread over a time to think, as those after them will.
    for (int i = 0; i < options_.sessions; ++i) {
      Arrive(begin + options_.think * i / options_.sessions);
    }
  }
  bool told_start = false;
  for (bool go_on = true; go_on && Clock::now() < end;) {
    const Clock::time_point now = Clock::now();
    for (const auto& visitor : visitors_) visitor->Act(now);
    Replace(now);
    go_on = site_.poll.Wait(std::min(end, NextAct(now)), &Visitor::OnReady);
    if (!told_start && site_.requests.finished() + site_.requests.failed() > 0) {
      std::cout << "started" << std::endl;
      told_start = true;
    }
  }
  const RealTime ended = RealNow();
  for (const auto& visitor : visitors_) visitor->Abandon();
  return WriteReport(Report(ended), options_.output);
}

void BrowseLoop::Arrive(Clock::time_point when) {
  std::optional<uint32_t> account;
  if (visitors_.size() < static_cast<size_t>(kMaxVisitors)) {
    account = site_.accounts.Take(site_.random);
  }
  if (!account) {
    ++turned_away_;
    return;
  }
  visitors_.push_back(std::make_unique<Visitor>(site_, *account, when));
  ++arrived_;
}

// Visitors who have left make place for new ones.
void BrowseLoop::Replace(Clock::time_point now) {
  const auto gone = std::erase_if(visitors_, [](const auto& visitor) { return visitor->gone(); });
  if (open_loop()) {
    while (next_arrival_ <= now) {
      Arrive(next_arrival_);
      next_arrival_ += duration_cast<Clock::duration>(
          Seconds(site_.random.Exponential(1 / options_.arrivals_per_s)));
    }
    return;
  }
  for (size_t i = 0; i < gone; ++i) {
    Arrive(now +
           duration_cast<Clock::duration>(Seconds(site_.random.Exponential(site_.think.count()))));
  }
}

Clock::time_point BrowseLoop::NextAct(Clock::time_point now) const {
  Clock::time_point next = std::min(next_arrival_, now + std::chrono::seconds(1));
  for (const auto& visitor : visitors_) next = std::min(next, visitor->NextAct());
  return next;
}

nlohmann::json BrowseLoop::Report(RealTime end) const {
  nlohmann::json report = site_.requests.ToJson(end);
  const Clock::time_point now = Clock::now();
  int unfinished = 0;
  Clock::duration oldest{0};
  for (const auto& visitor : visitors_) {
    unfinished += visitor->unfinished_requests();
    oldest = std::max(oldest, visitor->oldest_wait(now));
  }
  report["unfinished_requests"] = unfinished;
  report["oldest_unfinished_ms"] = duration_cast<milliseconds>(oldest).count();
  report["mix"] = site_.mix.name;
  report["sessions"] = arrived_;
  report["sessions_turned_away"] = turned_away_;
  report["pages"] = site_.pages.ToJson();
  return report;
}

}  // namespace

int RunBrowse(const BrowseOptions& options) { return BrowseLoop(options).Run(); }

}  // namespace postcopy_lab
