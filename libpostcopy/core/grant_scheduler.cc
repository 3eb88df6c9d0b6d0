#include "core/grant_scheduler.h"

#include <algorithm>

namespace postcopy {

void GrantScheduler::OnFault(PageAddress page) {
  faults_[newest_ % kRememberedFaults] = page;
  ++newest_;
  remembered_ = std::min<uint64_t>(remembered_ + 1, kRememberedFaults);
}

std::optional<Grant> GrantScheduler::NextAroundFault(uint64_t max_pages) {
  while (remembered_ > 0) {
    const PageAddress fault = faults_[(newest_ - 1) % kRememberedFaults];
    const uint64_t pages = map_.region_pages(fault.region);
    const PageIndex behind{std::min(pages, fault.page.value + 1 + kPagesBehindFault)};
    const PageIndex before{fault.page.value - std::min(fault.page.value, kPagesBeforeFault)};
    for (const auto& [from, limit] : {std::pair{fault.page, behind}, std::pair{before, fault.page}}) {
      const PageRange range = map_.TakeUngranted(fault.region, from, limit, max_pages);
      if (!range.empty()) return Grant{fault.region, range};
    }
    --newest_;
    --remembered_;
  }
  return std::nullopt;
}

std::optional<Grant> GrantScheduler::Next(uint64_t max_pages) {
  if (auto near = NextAroundFault(max_pages)) return near;
  while (cursor_.region.value < map_.count_regions()) {
    const PageIndex limit{map_.region_pages(cursor_.region)};
    const PageRange range = map_.TakeUngranted(cursor_.region, cursor_.page, limit, max_pages);
    cursor_.page = range.end();
    if (!range.empty()) return Grant{cursor_.region, range};
    cursor_ = {{cursor_.region.value + 1}, {0}};
  }
  return std::nullopt;
}

void GrantScheduler::Rewind() { cursor_ = {}; }

void GrantScheduler::RewindTo(PageAddress page) { cursor_ = std::min(cursor_, page); }

}  // namespace postcopy
