// The pages that were asked for by demand and have not come: by request id, with the time of the
// fault.
//
// Pure: time is an argument. Slots are reused; memory grows only when more pages are awaited at
// once than ever before. Not thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "core/units.h"

namespace postcopy {

using TimePoint = std::chrono::steady_clock::time_point;

struct Fetch {
  PageAddress page;
  TimePoint fault_time;
};

class FetchQueue {
 public:
  // No request in the queue has it: of one that nobody keeps account of.
  static constexpr uint32_t kNoId = ~uint32_t{0};

  explicit FetchQueue(size_t expected_at_once = 256) { slots_.reserve(expected_at_once); }

  // The id to send with the request. The page must not be in the queue.
  uint32_t Add(PageAddress page, TimePoint fault_time);
  // Ends the request `id` for `page`. Nothing: no such request waits; its page came through the bulk,
  // and its id may be another page's by now.
  std::optional<Fetch> Take(uint32_t id, PageAddress page);
  // Ends the request for `page`, whatever its id: its content came another way.
  std::optional<Fetch> TakePage(PageAddress page);
  // The request `id` for `page`; null: no such request waits.
  const Fetch* Find(uint32_t id, PageAddress page) const {
    return id < slots_.size() && slots_[id].has_value() && slots_[id]->page == page ? &*slots_[id]
                                                                                    : nullptr;
  }
  // The id of the request for `page`; nothing: none waits.
  std::optional<uint32_t> IdOf(PageAddress page) const;
  size_t size() const { return used_; }
  // All waiting requests, to be sent again after a reconnect; ids stay valid.
  template <typename Visit>
  void ForEach(Visit visit) const {
    for (uint32_t id = 0; id < slots_.size(); ++id) {
      if (slots_[id].has_value()) visit(id, *slots_[id]);
    }
  }

 private:
  std::optional<Fetch> Clear(uint32_t id);

  std::vector<std::optional<Fetch>> slots_;
  std::vector<uint32_t> free_;
  size_t used_ = 0;
};

}  // namespace postcopy
