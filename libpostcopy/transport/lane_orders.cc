#include "transport/lane_orders.h"

namespace postcopy {

uint32_t LaneOrders::AddRequest(uint32_t id, PageAddress page) {
  MutexLock lock(mutex_);
  if (!free_.empty()) {
    const uint32_t number = free_.back();
    free_.pop_back();
    requests_[number] = {id, page, true};
    return number;
  }
  requests_.push_back({id, page, true});
  free_.reserve(requests_.capacity());  // so that TakeRequest() never allocates
  return static_cast<uint32_t>(requests_.size() - 1);
}

std::optional<uint32_t> LaneOrders::TakeRequest(uint32_t number, PageAddress page) {
  MutexLock lock(mutex_);
  if (number >= requests_.size()) return std::nullopt;
  Request& request = requests_[number];
  if (!request.open || request.page != page) return std::nullopt;
  request.open = false;
  free_.push_back(number);
  return request.id;
}

bool LaneOrders::AddGrant(RegionId region, PageRange range) {
  const size_t added = added_.load(std::memory_order_relaxed);
  if (added - taken_.load(std::memory_order_acquire) == grants_.size()) return false;
  grants_[added % grants_.size()] = {region, range};
  added_.store(added + 1, std::memory_order_release);
  return true;
}

bool LaneOrders::TakeGranted(RegionId region, PageRange range) {
  const size_t taken = taken_.load(std::memory_order_relaxed);
  if (taken == added_.load(std::memory_order_acquire)) return false;
  wire::RangeFields& oldest = grants_[taken % grants_.size()];
  if (oldest.region != region || oldest.range.first != range.first ||
      range.count_pages > oldest.range.count_pages) {
    return false;
  }
  oldest.range = {range.end(), oldest.range.count_pages - range.count_pages};
  if (oldest.range.empty()) taken_.store(taken + 1, std::memory_order_release);
  return true;
}

bool LaneOrders::TakeMap(const wire::MapFields& map) {
  if (!map_asked_.load(std::memory_order_relaxed) || map_came_) return false;
  for (const PageRange& extent : map.extents) {
    if (PageAddress{map.region, extent.first} < map_up_to_) return false;
    map_up_to_ = {map.region, extent.end()};
  }
  map_came_ = map.last;
  return true;
}

void LaneOrders::Clear() {
  {
    MutexLock lock(mutex_);
    requests_.clear();
    free_.clear();
  }
  added_.store(0, std::memory_order_relaxed);
  taken_.store(0, std::memory_order_relaxed);
  map_asked_.store(false, std::memory_order_relaxed);
  map_up_to_ = {};
  map_came_ = false;
}

}  // namespace postcopy
