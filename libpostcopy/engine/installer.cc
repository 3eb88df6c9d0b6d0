#include "engine/installer.h"

#include <algorithm>
#include <thread>

namespace postcopy {

Installer::Outcome Installer::Install(RegionId region, PageRange range,
                                      std::span<const std::byte> content) {
  PageIndex page = range.first;
  while (page < range.end()) {
    if (!map_.Claim({region, page})) {
      page = page + 1;
      continue;
    }
    PageRange claimed{page, 1};
    while (claimed.end() < range.end() && map_.Claim({region, claimed.end()})) ++claimed.count_pages;
    const auto part = content.empty() ? content
                                      : content.subspan((page - range.first) * kPageBytes,
                                                        claimed.size_bytes());
    const Outcome outcome = InstallClaimed(region, claimed, part);
    if (outcome != Outcome::kDone) return outcome;
    // The page behind the claimed stretch, if any, was just refused: no need to ask again.
    page = claimed.end() + 1;
  }
  return Outcome::kDone;
}

Installer::Outcome Installer::InstallClaimed(RegionId region, PageRange range,
                                             std::span<const std::byte> content) {
  const MappedRegion& mapped = regions_[region.value];
  if (mapped.has_huge_pages()) return StageClaimed(region, range, content);
  if (mapped.file_backed() && !content.empty()) {
    const int error = device_.WriteFile(mapped, range.first, content);
    if (error != 0) {
      error_.store(error, std::memory_order_relaxed);
      UnclaimPages(region, range);
      return Outcome::kFailed;
    }
  }
  if (mapped.file_backed()) {
    for (PageIndex page = range.first; page < range.end(); page = page + 1) {
      map_.MarkWritten({region, page});
    }
  }
  return MapFilled(region, range, content);
}

Installer::Outcome Installer::StageClaimed(RegionId region, PageRange range,
                                           std::span<const std::byte> content) {
  const MappedRegion& mapped = regions_[region.value];
  while (!range.empty()) {
    const PageRange huge_page = mapped.WholePages({range.first, 1});
    const uint64_t pages = std::min(range.count_pages, huge_page.end() - range.first);
    const auto part = content.empty() ? content : content.first(pages * kPageBytes);
    auto whole = staging_.Add(region, {range.first, pages}, part);
    range = {range.first + pages, range.count_pages - pages};
    if (!content.empty()) content = content.subspan(part.size());
    if (whole == nullptr) continue;
    const Outcome outcome = MapFilled(region, huge_page, {whole.get(), mapped.page_bytes});
    staging_.Recycle(region, std::move(whole));
    if (outcome != Outcome::kDone) {
      UnclaimPages(region, range);
      return outcome;
    }
  }
  return Outcome::kDone;
}

Installer::Outcome Installer::MapFilled(RegionId region, PageRange range,
                                        std::span<const std::byte> content) {
  const MappedRegion& mapped = regions_[region.value];
  const bool file = mapped.file_backed();
  const bool zeros = content.empty();
  const uint64_t one = mapped.page_bytes / kPageBytes;  // the least that the kernel maps
  // Zeros of a RAM file: a page that was allocated beforehand is in the page cache and reads as
  // zero; where there is none, the kernel makes one, page by page, since the next may be there.
  bool make_zero_page = !file && zeros;
  bool one_by_one = false;
  const auto advance = [&](uint64_t pages) {
    range = {range.first + pages, range.count_pages - pages};
    if (!zeros) content = content.subspan(pages * kPageBytes);
  };
  while (!range.empty()) {
    const bool single = one_by_one || (file && make_zero_page);
    const PageRange part{range.first, single ? one : range.count_pages};
    const InstallResult result =
        make_zero_page ? device_.Zero(mapped, part)
        : file         ? device_.Continue(mapped, part)
                       : device_.Copy(mapped, part.first, content.first(part.size_bytes()));
    FinishPages(region, {range.first, result.done_bytes / kPageBytes}, true);
    advance(result.done_bytes / kPageBytes);
    switch (result.outcome) {
      case InstallOutcome::kInstalled: make_zero_page = !file && zeros; break;
      case InstallOutcome::kAlreadyPresent:
        if (file && make_zero_page) {  // in the page cache after all
          make_zero_page = false;
          break;
        }
        // Somebody else installed it: whoever waits has to be told all the same.
        FinishPages(region, {range.first, one}, true);
        device_.Wake(mapped, {range.first, one});
        advance(one);
        break;
      case InstallOutcome::kRetry:
        if (stopping_.load(std::memory_order_relaxed)) {
          UnclaimPages(region, range);
          return Outcome::kDone;
        }
        if (result.done_bytes == 0) std::this_thread::yield();
        break;
      case InstallOutcome::kNotFilled:
        if (zeros && !make_zero_page) {
          make_zero_page = true;
          break;
        }
        Drop(region, {range.first, one});
        advance(one);
        break;
      case InstallOutcome::kRangeGone:
        if (part.count_pages > one) {
          one_by_one = true;
          break;
        }
        Drop(region, {range.first, one});
        advance(one);
        break;
      case InstallOutcome::kProcessGone: UnclaimPages(region, range); return Outcome::kVmGone;
      case InstallOutcome::kFailed:
        error_.store(result.error, std::memory_order_relaxed);
        UnclaimPages(region, range);
        return Outcome::kFailed;
    }
  }
  return Outcome::kDone;
}

void Installer::Drop(RegionId region, PageRange range) {
  FinishPages(region, range, false);
  device_.Wake(regions_[region.value], range);
}

void Installer::FinishPages(RegionId region, PageRange range, bool here) {
  for (PageIndex page = range.first; page < range.end(); page = page + 1) {
    const auto finished = map_.Finish({region, page}, here);
    // A fault that was reported while the page was being mapped may have begun to wait after the
    // kernel's wake; it looks again.
    if (finished.waited) {
      const MappedRegion& mapped = regions_[region.value];
      device_.Wake(mapped, mapped.WholePages({page, 1}));
    }
    if (finished.demanded) observer_.OnDemandServed({region, page});
  }
}

void Installer::UnclaimPages(RegionId region, PageRange range) {
  for (PageIndex page = range.first; page < range.end(); page = page + 1) {
    map_.Unclaim({region, page});
  }
}

}  // namespace postcopy
