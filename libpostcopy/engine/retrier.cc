#include "engine/retrier.h"

#include <algorithm>
#include <utility>

namespace postcopy {

Result<void> Retrier::Start() {
  auto thread = QuietThread::Start("pc-retry", [this] { Run(); });
  if (!thread.ok()) return thread.error();
  thread_.emplace(std::move(*thread));
  return {};
}

void Retrier::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  if (!thread_.has_value()) return;
  thread_->Join();
  thread_.reset();
}

void Retrier::NoteStall(const Error& cause) {
  if (!stall_.has_value()) stall_ = Stall{cause, std::chrono::steady_clock::now()};
  stall_->cause = cause;
  changed_.NotifyAll();
}

void Retrier::OnFailed(RegionId region, PageRange range, const Error& cause) {
  // First, so that the round that follows the note ends the pause.
  if (in_a_row_.fetch_add(1, std::memory_order_relaxed) + 1 >= kFailuresInARow) precacher_.Pause();
  MutexLock lock(mutex_);
  const bool joins = !failed_.empty() && failed_.back().region == region &&
                     failed_.back().range.end() == range.first;
  if (joins) {
    failed_.back().range.count_pages += range.count_pages;
  } else {
    failed_.push_back({region, range});
  }
  NoteStall(cause);
}

void Retrier::OnNotMapped(PageAddress page, int error) {
  MutexLock lock(mutex_);
  not_mapped_.push_back(page);
  NoteStall(ErrnoError(error, "map guest memory"));
}

std::optional<Stall> Retrier::stall() {
  MutexLock lock(mutex_);
  return stall_;
}

void Retrier::Run() {
  std::chrono::milliseconds pause = kFirstPause;
  for (;;) {
    {
      MutexLock lock(mutex_);
      while (!stopping_ && !stall_.has_value()) changed_.Wait(mutex_);
      const auto until = std::chrono::steady_clock::now() + pause;
      for (auto left = until - std::chrono::steady_clock::now();
           !stopping_ && left > std::chrono::nanoseconds::zero();
           left = until - std::chrono::steady_clock::now()) {
        changed_.WaitFor(mutex_, left);
      }
      if (stopping_) return;
    }
    pause = Round() ? std::min(2 * pause, kLongestPause) : kFirstPause;
  }
}

bool Retrier::Round() {
  std::vector<Failed> failed;
  std::vector<PageAddress> not_mapped;
  std::erase_if(retried_, [this](const Failed& each) { return IsAllHere(each); });
  {
    MutexLock lock(mutex_);
    failed.swap(failed_);
    not_mapped.swap(not_mapped_);
    if (failed.empty() && not_mapped.empty() && retried_.empty()) {
      stall_.reset();
      return false;
    }
  }
  for (const Failed& each : failed) {
    const MappedRegion& region = regions_[each.region.value];
    for (PageIndex page = each.range.first; page < each.range.end();) {
      const PageRange unit = region.WholePages({page, 1});
      RequestIfWaitedFor(each.region, unit);
      page = unit.end();
    }
  }
  for (const PageAddress& page : not_mapped) {
    const MappedRegion& region = regions_[page.region.value];
    device_.Wake(region, region.WholePages({page.page, 1}));
  }
  in_a_row_.store(0, std::memory_order_relaxed);
  for (const Failed& each : failed) {
    const PageRange pages = regions_[each.region.value].WholePages(each.range);
    precacher_.GrantAgain(each.region, pages);
    retried_.push_back(each);
  }
  precacher_.Resume();
  return true;
}

void Retrier::RequestIfWaitedFor(RegionId region, PageRange unit) {
  bool waited_for = false;
  for (PageIndex page = unit.first; page < unit.end(); page = page + 1) {
    waited_for |= map_.TakeWaiter({region, page});
  }
  if (!waited_for) return;
  bool counted = fetcher_.IsAwaited(region, unit);
  for (PageIndex page = unit.first; page < unit.end(); page = page + 1) {
    if (map_.StateOf({region, page}) != PageState::kMissing) continue;
    map_.MarkDemanded({region, page});
    if (fetcher_.AskAgain({region, page})) continue;
    if (counted) {
      fetcher_.AskAlong({region, page});
    } else {
      fetcher_.Ask({region, page}, std::chrono::steady_clock::now());
      counted = true;
    }
  }
}

bool Retrier::IsAllHere(const Failed& failed) const {
  for (PageIndex page = failed.range.first; page < failed.range.end(); page = page + 1) {
    const PageState state = map_.StateOf({failed.region, page});
    if (state == PageState::kMissing || map_.IsBeingFilled({failed.region, page})) return false;
  }
  return true;
}

}  // namespace postcopy
