#include "perf/replay/simulation.h"

#include <algorithm>
#include <queue>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/grant_window.h"
#include "perf/replay/touches.h"
#include "wire/page_protocol.h"

namespace postcopy::replay {
namespace {

using std::chrono::nanoseconds;

struct Event {
  enum class Kind { kTouch, kBulkBegins, kPushed, kDemanded };
  nanoseconds time{};
  Kind kind = Kind::kTouch;
  size_t touch = 0;            // kTouch
  PageAddress page{};          // kPushed, kDemanded
  uint64_t granted_bytes = 0;  // kPushed: with the last page of a grant, all of its bytes
  GrantWindow::Sent grant{};   // the same
  uint64_t number = 0;         // of two at the same time the one that was planned first comes first
};

struct Later {
  bool operator()(const Event& a, const Event& b) const {
    return std::pair(a.time, a.number) > std::pair(b.time, b.number);
  }
};

// What is known of a page besides its state in the PageMap.
struct PageNotes {
  bool has_data : 1 = false;
  bool granted : 1 = false;
  bool out_of_order : 1 = false;
  bool touched : 1 = false;
};

// Of a trace that says when the guest resumed.
class Simulation {
 public:
  Simulation(const Trace& trace, const PolicyKind& policy, const Parameters& parameters)
      : parameters_(parameters),
        touches_(TouchesOf(trace)),
        map_(LayoutOf(trace)),
        policy_(policy.make(map_)) {
    outcome_.policy = policy.name;
    outcome_.touches = touches_.touches.size();
    for (const Trace::Block& block : trace.blocks) notes_.emplace_back(block.pages);
    for (const Trace::Data& data : trace.data) {
      for (PageIndex page = data.range.first; page < data.range.end(); page = page + 1) {
        Of({data.block, page}).has_data = true;
      }
    }
    followers_.resize(touches_.touches.size());
  }

  Outcome Run() {
    for (size_t i = 0; i < touches_.touches.size(); ++i) {
      const Moment& when = touches_.touches[i].when;
      if (when.after.has_value()) {
        followers_[*when.after].push_back(i);
      } else {
        Plan({.time = when.delay, .kind = Event::Kind::kTouch, .touch = i});
      }
    }
    if (!touches_.resume->after.has_value()) PlanBulk(nanoseconds(0));
    while (!events_.empty()) {
      const Event event = events_.top();
      events_.pop();
      now_ = event.time;
      switch (event.kind) {
        case Event::Kind::kTouch:
          Touched(event.touch);
          break;
        case Event::Kind::kBulkBegins:
          BulkBegins();
          break;
        case Event::Kind::kPushed:
          Pushed(event);
          break;
        case Event::Kind::kDemanded:
          Installed(event.page);
          break;
      }
    }
    CountWaste();
    return outcome_;
  }

 private:
  static MemoryLayout LayoutOf(const Trace& trace) {
    MemoryLayout layout;
    for (const Trace::Block& block : trace.blocks) {
      layout.regions.push_back({block.name, block.pages * kPageBytes});
    }
    return layout;
  }
  PageNotes& Of(PageAddress page) { return notes_[page.region.value][page.page.value]; }
  bool IsMissing(PageAddress page) const { return map_.StateOf(page) == PageState::kMissing; }

  void Plan(Event event) {
    event.number = planned_++;
    events_.push(event);
  }
  void PlanBulk(nanoseconds from) {
    Plan({.time = from + touches_.resume->delay + parameters_.round_trip,
          .kind = Event::Kind::kBulkBegins});
  }

  // Sends `bytes` that were asked for now; the time when they have come.
  nanoseconds Send(uint64_t bytes) {
    const nanoseconds asked = now_ + parameters_.round_trip / 2;
    link_free_ = std::max(link_free_, asked) +
                 nanoseconds(static_cast<int64_t>(static_cast<double>(bytes) * 1e9 /
                                                  parameters_.bytes_per_s));
    return link_free_ + (parameters_.round_trip - parameters_.round_trip / 2);
  }

  void Touched(size_t touch) {
    const PageAddress page = touches_.touches[touch].page;
    PageNotes& notes = Of(page);
    notes.touched = true;
    if (!IsMissing(page)) {
      if (notes.granted) outcome_.needed_bytes += kPageBytes;
      return Over(touch, nanoseconds(0));
    }
    ++outcome_.faults_left;
    waits_.push_back({page, touch, now_});
    map_.MarkDemanded(page);
    policy_->OnFault(page);
    if (notes.granted) outcome_.sent_twice_bytes += kPageBytes;
    const uint64_t content = notes.has_data ? kPageBytes : 0;
    const nanoseconds come = Send(wire::kPageFrameBytes + content);
    Plan({.time = come + parameters_.install, .kind = Event::Kind::kDemanded, .page = page});
  }

  // The touch's wait has ended, and what followed it can be told.
  void Over(size_t touch, nanoseconds waited) {
    outcome_.wait += waited;
    outcome_.longest_wait = std::max(outcome_.longest_wait, waited);
    outcome_.last_touch = std::max(outcome_.last_touch, now_);
    for (const size_t next : followers_[touch]) {
      Plan({.time = now_ + touches_.touches[next].when.delay,
            .kind = Event::Kind::kTouch,
            .touch = next});
    }
    if (touches_.resume->after == touch) PlanBulk(now_);
  }

  void BulkBegins() {
    window_.GuestRuns();
    for (uint32_t region = 0; region < notes_.size(); ++region) {
      for (uint64_t page = 0; page < notes_[region].size(); ++page) {
        const PageNotes& notes = notes_[region][page];
        // One that was asked for before is answered.
        if (!notes.has_data && !notes.touched) map_.MarkEmpty({region}, {{page}, 1});
      }
    }
    if (map_.outstanding_pages() == 0) outcome_.last_page = now_;
    GrantMore();
  }

  void GrantMore() {
    for (;;) {
      const uint64_t pages =
          window_.GrantBytes(!waits_.empty(), wire::kMaxRunPages * kPageBytes) / kPageBytes;
      if (pages == 0) return;
      const auto grant = policy_->Next(pages);
      if (!grant.has_value()) return;
      Push(*grant);
    }
  }

  void Push(const Grant& grant) {
    const auto sent = window_.OnGranted(grant.range.size_bytes(), TimePoint{} + now_);
    const bool out_of_order = FirstUngranted() < PageAddress{grant.region, grant.range.first};
    uint64_t head = wire::kPageFrameBytes;
    for (PageIndex page = grant.range.first; page < grant.range.end(); page = page + 1) {
      PageNotes& notes = Of({grant.region, page});
      notes.granted = true;
      notes.out_of_order = out_of_order;
      install_free_ = std::max(install_free_, Send(kPageBytes + head)) + parameters_.install;
      head = 0;
      const bool last = page + 1 == grant.range.end();
      Plan({.time = install_free_,
            .kind = Event::Kind::kPushed,
            .page = {grant.region, page},
            .granted_bytes = last ? grant.range.size_bytes() : 0,
            .grant = sent});
    }
  }

  // The first page in address order that is missing and was neither pushed nor demanded; behind the
  // last page if there is none. Pages never become so again, hence it only moves on.
  PageAddress FirstUngranted() {
    while (cursor_.region.value < notes_.size()) {
      if (cursor_.page.value == notes_[cursor_.region.value].size()) {
        cursor_ = {{cursor_.region.value + 1}, {0}};
        continue;
      }
      const PageNotes& notes = Of(cursor_);
      if (notes.has_data && !notes.granted && !notes.touched && IsMissing(cursor_)) break;
      cursor_.page = cursor_.page + 1;
    }
    return cursor_;
  }

  void Pushed(const Event& event) {
    Installed(event.page);
    if (event.granted_bytes == 0) return;
    window_.OnArrived(event.granted_bytes, event.grant, TimePoint{} + now_);
    GrantMore();
  }

  void Installed(PageAddress page) {
    if (!map_.Claim(page)) return;  // the other copy was first
    const bool waited = map_.Finish(page, true).demanded;
    if (map_.outstanding_pages() == 0) outcome_.last_page = now_;
    if (!waited) return;
    const auto wait = std::find_if(waits_.begin(), waits_.end(),
                                   [&](const Wait& each) { return each.page == page; });
    const Wait ended = *wait;
    waits_.erase(wait);
    Over(ended.touch, now_ - ended.since);
  }

  void CountWaste() {
    outcome_.wasted_bytes = outcome_.sent_twice_bytes;
    for (const auto& block : notes_) {
      for (const PageNotes& page : block) {
        if (page.out_of_order && !page.touched) outcome_.wasted_bytes += kPageBytes;
      }
    }
  }

  struct Wait {
    PageAddress page;
    size_t touch;
    nanoseconds since;
  };

  const Parameters parameters_;
  const Touches touches_;
  PageMap map_;
  std::unique_ptr<Policy> policy_;
  GrantWindow window_;
  std::vector<std::vector<PageNotes>> notes_;
  std::vector<std::vector<size_t>> followers_;  // by touch: the touches that hang on it
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  uint64_t planned_ = 0;
  nanoseconds now_{};
  nanoseconds link_free_{};     // when the link has sent all that it was asked for
  nanoseconds install_free_{};  // the same of the bulk's installs
  std::vector<Wait> waits_;     // few at once: one a vCPU
  PageAddress cursor_{};
  Outcome outcome_;
};

}  // namespace

absl::StatusOr<Outcome> Simulate(const Trace& trace, const PolicyKind& policy,
                                 const Parameters& parameters) {
  if (trace.data.empty() || !trace.resumed.has_value()) {
    return absl::InvalidArgumentError(
        "the trace does not say which pages have data and when the guest resumed");
  }
  uint64_t pages = 0;
  for (const Trace::Block& block : trace.blocks) {
    if (block.page_bytes != kPageBytes) {
      return absl::InvalidArgumentError(absl::StrCat("block ", block.name, " has pages of ",
                                                     block.page_bytes, " bytes: only those of ",
                                                     kPageBytes, " can be replayed"));
    }
    pages += block.pages;
    if (pages > kMostPages) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", kMostPages, " pages: too many to be replayed"));
    }
  }
  return Simulation(trace, policy, parameters).Run();
}

}  // namespace postcopy::replay
