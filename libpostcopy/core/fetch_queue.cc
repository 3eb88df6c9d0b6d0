#include "core/fetch_queue.h"

namespace postcopy {

uint32_t FetchQueue::Add(PageAddress page, TimePoint fault_time) {
  ++used_;
  if (!free_.empty()) {
    const uint32_t id = free_.back();
    free_.pop_back();
    slots_[id] = Fetch{page, fault_time};
    return id;
  }
  slots_.push_back(Fetch{page, fault_time});
  free_.reserve(slots_.capacity());  // so that Clear() never allocates
  return static_cast<uint32_t>(slots_.size() - 1);
}

std::optional<Fetch> FetchQueue::Clear(uint32_t id) {
  const std::optional<Fetch> fetch = slots_[id];
  slots_[id].reset();
  free_.push_back(id);
  --used_;
  return fetch;
}

std::optional<Fetch> FetchQueue::Take(uint32_t id, PageAddress page) {
  if (id >= slots_.size() || !slots_[id].has_value() || slots_[id]->page != page) return std::nullopt;
  return Clear(id);
}

std::optional<Fetch> FetchQueue::TakePage(PageAddress page) {
  const auto id = IdOf(page);
  if (!id.has_value()) return std::nullopt;
  return Clear(*id);
}

std::optional<uint32_t> FetchQueue::IdOf(PageAddress page) const {
  for (uint32_t id = 0; id < slots_.size(); ++id) {
    if (slots_[id].has_value() && slots_[id]->page == page) return id;
  }
  return std::nullopt;
}

}  // namespace postcopy
