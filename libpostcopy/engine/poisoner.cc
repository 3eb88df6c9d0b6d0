#include "engine/poisoner.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace postcopy {
namespace {

// Of one call, so that it does not hold the VM's address space for long.
constexpr uint64_t kMaxPagesAtOnce = 4096;
constexpr std::chrono::seconds kRetryLimit{5};

// What has to be poisoned of a page, or of a huge page.
enum class Lost {
  kNothing,
  kNow,     // it is missing
  kBefore,  // marked by who has ended: perhaps the kernel has not been told
};

class RegionPoisoner {
 public:
  RegionPoisoner(FaultDevice& device, PageMap& map, const MappedRegion& region, RegionId id)
      : device_(device),
        map_(map),
        region_(region),
        id_(id),
        in_one_(region.page_bytes / kPageBytes) {}

  Result<void> Run() {
    const PageIndex end{region_.size_bytes / kPageBytes};
    for (PageIndex page{0}; page < end;) {
      const Lost lost = Look(page);
      if (lost == Lost::kNothing || !Take(page, lost)) {
        page = page + in_one_;
        continue;
      }
      PageRange stretch{page, in_one_};
      while (stretch.end() < end && stretch.count_pages < kMaxPagesAtOnce &&
             Take(stretch.end(), lost)) {
        stretch.count_pages += in_one_;
      }
      auto poisoned = PoisonStretch(stretch, lost);
      if (!poisoned.ok()) return poisoned;
      page = stretch.end();
    }
    return {};
  }

 private:
  Lost Look(PageIndex first) const {
    Lost lost = Lost::kNothing;
    for (PageIndex page = first; page < first + in_one_; page = page + 1) {
      switch (map_.StateOf({id_, page})) {
        case PageState::kMissing:
        case PageState::kFilling:
          return Lost::kNow;
        case PageState::kPoisoned:
          lost = Lost::kBefore;
          break;
        case PageState::kPresent:
        case PageState::kDiscarded:
        case PageState::kWritten:
          break;
      }
    }
    return lost;
  }

  // Marks the page if that is what is lost of it. False: it is not, or it was given up just now.
  bool Take(PageIndex first, Lost lost) {
    if (Look(first) != lost) return false;
    for (PageIndex page = first; page < first + in_one_; page = page + 1) {
      map_.Poison({id_, page});
    }
    return map_.StateOf({id_, first}) == PageState::kPoisoned;
  }

  Result<void> PoisonStretch(PageRange stretch, Lost lost) {
    const auto deadline = std::chrono::steady_clock::now() + kRetryLimit;
    bool one_by_one = false;
    const auto advance = [&](uint64_t pages) {
      stretch = {stretch.first + pages, stretch.count_pages - pages};
    };
    while (!stretch.empty()) {
      const PageRange asked{stretch.first, one_by_one ? in_one_ : stretch.count_pages};
      const InstallResult result = device_.Poison(region_, asked);
      advance(result.done_bytes / kPageBytes);
      switch (result.outcome) {
        case InstallOutcome::kInstalled:
          break;
        case InstallOutcome::kAlreadyPresent:
          // Installed by who had ended before it was noted; or poisoned by it, then that stays.
          if (lost == Lost::kNow) Restore(stretch.first);
          device_.Wake(region_, {stretch.first, in_one_});
          advance(in_one_);
          break;
        case InstallOutcome::kRetry:
          if (result.done_bytes != 0) break;
          if (std::chrono::steady_clock::now() > deadline) {
            return Error{ErrorCode::kTimeout,
                         "poison guest memory: the VM's discards are not read"};
          }
          std::this_thread::yield();
          break;
        case InstallOutcome::kNotFilled:
        case InstallOutcome::kRangeGone:
          // A stretch is gone if one of its pages is: find out which. That was unplugged, or is
          // poisoned and unregistered already; it counts as lost, which is safe.
          if (asked.count_pages == in_one_) advance(in_one_);
          one_by_one = true;
          break;
        case InstallOutcome::kProcessGone:
          return Error{ErrorCode::kUnavailable, "poison guest memory: the VM's process is gone"};
        case InstallOutcome::kFailed:
          return ErrnoError(result.error, "poison guest memory");
      }
    }
    return {};
  }

  void Restore(PageIndex first) {
    for (PageIndex page = first; page < first + in_one_; page = page + 1) {
      map_.Restore({id_, page});
    }
  }

  FaultDevice& device_;
  PageMap& map_;
  const MappedRegion& region_;
  const RegionId id_;
  const uint64_t in_one_;  // small pages that the kernel takes together
};

}  // namespace

Result<void> PoisonWhatIsMissing(FaultDevice& device, PageMap& map,
                                 const std::vector<MappedRegion>& regions) {
  for (uint32_t i = 0; i < regions.size(); ++i) {
    auto poisoned = RegionPoisoner(device, map, regions[i], {i}).Run();
    if (!poisoned.ok()) return poisoned;
  }
  return {};
}

}  // namespace postcopy
