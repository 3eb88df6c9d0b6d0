// A PageSource in memory: page p of a region carries p in its first eight bytes and something not
// zero behind; every fourth page is zero. Reads can be made to fail or to wait.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "server/page_source.h"
#include "wire/bytes.h"

namespace postcopy {

class MemorySource final : public PageSource {
 public:
  explicit MemorySource(MemoryLayout layout) : layout_(std::move(layout)) {}

  static bool IsZeroPage(uint64_t page) { return page % 4 == 3; }

  void FailReads(int error) { error_ = error; }
  // Of this page only.
  void FailReadsOf(uint64_t page, int error) {
    error_ = error;
    failing_page_ = page;
  }
  // Reads wait until Open().
  void Hold() {
    const std::lock_guard lock(mutex_);
    held_ = true;
  }
  void Open() {
    const std::lock_guard lock(mutex_);
    held_ = false;
    changed_.notify_all();
  }
  // Blocks until this many reads wait.
  void AwaitHeld(int reads) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return waiting_ >= reads; });
  }
  void SetExtents(std::vector<PageRange> extents) { extents_ = std::move(extents); }
  // Finding out what has data takes so long.
  void DelayExtents(std::chrono::milliseconds delay) { extents_delay_ = delay; }

  const MemoryLayout& layout() const override { return layout_; }
  int Read(RegionId, PageRange range, std::span<std::byte> to) override {
    {
      std::unique_lock lock(mutex_);
      ++waiting_;
      changed_.notify_all();
      changed_.wait(lock, [&] { return !held_; });
      --waiting_;
    }
    if (error_ != 0 && (!failing_page_.has_value() || range.contains({*failing_page_}))) {
      return error_;
    }
    for (uint64_t i = 0; i < range.count_pages; ++i) {
      const uint64_t page = range.first.value + i;
      std::byte* const at = to.data() + i * kPageBytes;
      std::fill_n(at, kPageBytes, IsZeroPage(page) ? std::byte{0} : std::byte{0x5a});
      if (!IsZeroPage(page)) wire::StoreLittleEndian(at, page);
    }
    return 0;
  }
  Result<std::vector<PageRange>> DataExtents(RegionId region) override {
    std::this_thread::sleep_for(extents_delay_);
    if (error_ != 0 && !failing_page_.has_value()) return ErrnoError(error_, "find data of guest memory");
    if (!extents_.empty()) return region.value == 0 ? extents_ : std::vector<PageRange>{};
    return std::vector<PageRange>{{{0}, layout_.regions[region.value].count_pages()}};
  }

 private:
  const MemoryLayout layout_;
  std::atomic<int> error_{0};
  std::optional<uint64_t> failing_page_;
  std::vector<PageRange> extents_;
  std::chrono::milliseconds extents_delay_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
  bool held_ = false;
  int waiting_ = 0;
};

}  // namespace postcopy
