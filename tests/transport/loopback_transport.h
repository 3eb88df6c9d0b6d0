// A PageTransport without a network: what is asked for is kept until the test delivers it, on the
// test's own thread, in the order and with the faults that a plan says.
//
// Content is made up: page p of a region carries p in its first eight bytes, except that every
// fourth page is zero (IsZeroPage). Asking is thread-safe; delivering is the test thread's.
#pragma once

#include <algorithm>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <vector>

#include "transport/page_transport.h"

namespace postcopy {

// What goes wrong, and when. Deliveries are counted from 1.
class LoopbackPlan {
 public:
  enum class Order {
    kAsAsked,
    kNewestFirst,  // replies overtake each other
    kBulkFirst,    // the bulk brings what was demanded before the demand's reply does
  };
  LoopbackPlan& Deliver(Order order) {
    order_ = order;
    return *this;
  }
  // All lanes end after this many deliveries, with what was asked for unanswered, until Restore().
  LoopbackPlan& CutAfterDeliveries(size_t deliveries) {
    cut_after_ = deliveries;
    return *this;
  }
  // This delivery comes twice.
  LoopbackPlan& Duplicate(size_t delivery) {
    duplicated_.insert(delivery);
    return *this;
  }

 private:
  friend class LoopbackTransport;
  Order order_ = Order::kAsAsked;
  std::optional<size_t> cut_after_;
  std::set<size_t> duplicated_;
};

class LoopbackTransport final : public PageTransport {
 public:
  struct Asked {
    enum class Kind { kRequest, kGrant, kMap } kind;
    uint32_t id = 0;
    size_t lane = 0;
    RegionId region;
    PageRange range;
  };

  explicit LoopbackTransport(MemoryLayout layout, size_t bulk_lanes = 2, LoopbackPlan plan = {})
      : layout_(std::move(layout)), bulk_lanes_(bulk_lanes), plan_(std::move(plan)) {
    for (uint32_t i = 0; i < layout_.regions.size(); ++i) {
      map_.push_back({{i}, {{{0}, layout_.regions[i].count_pages()}}, false});
    }
    map_.back().last = true;
    content_.resize(wire::kMaxRunPages * kPageBytes);
  }

  static bool IsZeroPage(uint64_t page) { return page % 4 == 3; }

  // --- the test's ----------------------------------------------------------------------------------

  void SetRoundTrip(std::chrono::nanoseconds time) { round_trip_ = time; }
  // The answer to RequestMap(), instead of "all pages have data".
  void SetMap(std::vector<wire::MapFields> map) { map_ = std::move(map); }
  // What was asked for and has not been answered, oldest first.
  std::vector<Asked> asked() {
    const std::lock_guard lock(mutex_);
    return {asked_.begin(), asked_.end()};
  }
  // The same, and it will never be answered.
  std::vector<Asked> TakeAsked() {
    const std::lock_guard lock(mutex_);
    const std::deque<Asked> asked = std::exchange(asked_, {});
    return {asked.begin(), asked.end()};
  }
  // Answers one message, or with a grant one run of it. False: nothing is asked for, or the lanes
  // are down.
  bool DeliverOne() {
    Asked next;
    {
      const std::lock_guard lock(mutex_);
      if (down_ || stopped_ || asked_.empty()) return false;
      if (plan_.cut_after_ == deliveries_) {
        down_ = true;
      } else {
        next = TakeNext();
        ++deliveries_;
      }
    }
    if (down_) {
      sink_->OnInterrupted({ErrorCode::kUnavailable, "page server: cut by the plan"});
      return false;
    }
    Answer(next);
    if (plan_.duplicated_.contains(deliveries_)) Answer(next);
    return true;
  }
  void DeliverAll() {
    while (DeliverOne()) {
    }
  }
  PageSink& sink() { return *sink_; }
  // From now on the source cannot read this page; nothing: it can read all.
  void SetUnreadable(std::optional<uint64_t> page) { unreadable_ = page; }
  // The lanes are made anew; they will be cut no more.
  void Restore() {
    {
      const std::lock_guard lock(mutex_);
      asked_.clear();
      down_ = false;
      plan_.cut_after_.reset();
    }
    sink_->OnUrgentRestored();
    sink_->OnBulkRestored();
  }

  // --- PageTransport -------------------------------------------------------------------------------

  const MemoryLayout& layout() const override { return layout_; }
  size_t bulk_lanes() const override { return bulk_lanes_; }
  Result<void> Start(PageSink& sink) override {
    sink_ = &sink;
    return {};
  }
  bool Request(uint32_t id, PageAddress page) override {
    return Ask({Asked::Kind::kRequest, id, 0, page.region, {page.page, 1}});
  }
  bool RequestMap() override { return Ask({Asked::Kind::kMap, 0, 0, {}, {}}); }
  bool Grant(size_t lane, RegionId region, PageRange range) override {
    return Ask({Asked::Kind::kGrant, 0, lane, region, range});
  }
  std::chrono::nanoseconds RoundTrip() override { return round_trip_; }
  void Stop() override {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }

 private:
  bool Ask(const Asked& asked) {
    const std::lock_guard lock(mutex_);
    if (down_ || stopped_) return false;
    asked_.push_back(asked);
    return true;
  }

  // REQUIRES: mutex_ is held, something is asked for.
  Asked TakeNext() {
    auto chosen = asked_.begin();
    switch (plan_.order_) {
      case LoopbackPlan::Order::kAsAsked: break;
      case LoopbackPlan::Order::kNewestFirst: chosen = asked_.end() - 1; break;
      case LoopbackPlan::Order::kBulkFirst:
        chosen = std::find_if(asked_.begin(), asked_.end(), [](const Asked& asked) {
          return asked.kind != Asked::Kind::kRequest;
        });
        if (chosen == asked_.end()) chosen = asked_.begin();
        break;
    }
    Asked next = *chosen;
    if (next.kind == Asked::Kind::kGrant) {
      // One run: pages that are all zero, or all not.
      const bool zero = IsZeroPage(next.range.first.value);
      uint64_t pages = 1;
      while (pages < next.range.count_pages &&
             IsZeroPage(next.range.first.value + pages) == zero) {
        ++pages;
      }
      if (pages < next.range.count_pages) {
        chosen->range = {next.range.first + pages, next.range.count_pages - pages};
        next.range.count_pages = pages;
        return next;
      }
    }
    asked_.erase(chosen);
    return next;
  }

  std::span<const std::byte> ContentOf(PageRange range) {
    if (IsZeroPage(range.first.value)) return {};
    for (uint64_t i = 0; i < range.count_pages; ++i) {
      wire::StoreLittleEndian(content_.data() + i * kPageBytes, range.first.value + i);
    }
    return {content_.data(), range.size_bytes()};
  }

  void Answer(const Asked& asked) {
    switch (asked.kind) {
      case Asked::Kind::kMap:
        for (const wire::MapFields& piece : map_) sink_->OnMap(piece);
        return;
      case Asked::Kind::kRequest: {
        if (unreadable_ == asked.range.first.value) return RefuseToRead(asked, asked.range);
        const auto content = ContentOf(asked.range);
        sink_->OnPage(asked.id, {asked.region, asked.range.first}, EncodingOf(content), content);
        return;
      }
      case Asked::Kind::kGrant: {
        if (unreadable_.has_value() && asked.range.contains({*unreadable_})) {
          const PageRange before{asked.range.first, *unreadable_ - asked.range.first.value};
          const PageRange behind{{*unreadable_ + 1}, asked.range.end().value - *unreadable_ - 1};
          if (!before.empty()) Answer({asked.kind, asked.id, asked.lane, asked.region, before});
          RefuseToRead(asked, {{*unreadable_}, 1});
          if (!behind.empty()) Answer({asked.kind, asked.id, asked.lane, asked.region, behind});
          return;
        }
        const auto content = ContentOf(asked.range);
        sink_->OnRun(asked.lane, asked.region, asked.range, EncodingOf(content), content);
        return;
      }
    }
  }
  void RefuseToRead(const Asked& asked, PageRange range) {
    std::optional<size_t> lane;
    if (asked.kind == Asked::Kind::kGrant) lane = asked.lane;
    sink_->OnUnreadable(lane, asked.region, range, {ErrorCode::kIo, "page server: it cannot read"});
  }
  static wire::Encoding EncodingOf(std::span<const std::byte> content) {
    return content.empty() ? wire::Encoding::kZero : wire::Encoding::kRaw;
  }
  const MemoryLayout layout_;
  const size_t bulk_lanes_;
  std::chrono::nanoseconds round_trip_{};
  LoopbackPlan plan_;
  std::vector<wire::MapFields> map_;
  std::vector<std::byte> content_;
  std::optional<uint64_t> unreadable_;
  PageSink* sink_ = nullptr;
  size_t deliveries_ = 0;

  std::mutex mutex_;
  std::deque<Asked> asked_;
  bool down_ = false;
  bool stopped_ = false;
};

}  // namespace postcopy
