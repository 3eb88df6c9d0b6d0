// The engine over a fake device and a loopback transport: what tests of things that go wrong share.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/engine.h"
#include "gmock/gmock.h"
#include "tests/engine/fake_fault_device.h"
#include "tests/transport/loopback_transport.h"

namespace postcopy {

class EngineFaultsTest : public testing::Test {
 protected:
  using Call = FakeFaultDevice::Call;
  static constexpr uint64_t kPages = 1024;

  void Begin(LoopbackPlan plan = {}) {
    auto transport = std::make_unique<LoopbackTransport>(layout_, 2, std::move(plan));
    transport_ = transport.get();
    engine_.emplace(std::move(transport), device_, regions_);
    ASSERT_TRUE(engine_->Start().ok());
  }
  void Fault(uint64_t page) { Feed(FakeFaultDevice::Missing(regions_[0], page)); }
  void Discard(uint64_t first, uint64_t pages) {
    Feed(FakeFaultDevice::Remove(regions_[0], {{first}, pages}));
  }
  void Feed(const FaultEvent& event) {
    device_.FeedBatch({event});
    device_.AwaitIdle();
  }
  static FakeFaultDevice::Record Wake(uint64_t page) { return {Call::kWake, {{page}, 1}, {}}; }
  // Pages that were filled, each once.
  std::vector<uint64_t> FilledPages() {
    std::vector<uint64_t> pages;
    for (const auto& record : device_.TakeCalls()) {
      if (record.call != Call::kCopy && record.call != Call::kZero) continue;
      for (uint64_t i = 0; i < record.pages.count_pages; ++i) {
        pages.push_back(record.pages.first.value + i);
      }
    }
    return pages;
  }
  void ExpectEveryPageFilledOnce() {
    std::vector<int> times(kPages, 0);
    for (const uint64_t page : FilledPages()) ++times[page];
    EXPECT_THAT(times, testing::Each(1));
  }

  // What failed may have been tried several times.
  void ExpectEveryPageHasCome() {
    std::vector<uint64_t> filled = FilledPages();
    std::sort(filled.begin(), filled.end());
    filled.erase(std::unique(filled.begin(), filled.end()), filled.end());
    EXPECT_EQ(filled.size(), kPages);
  }

  const MemoryLayout layout_{{{"ram", kPages * kPageBytes}}};
  const std::vector<MappedRegion> regions_{{0x10000000, kPages * kPageBytes, -1, 0}};
  FakeFaultDevice device_;
  std::optional<Engine> engine_;
  LoopbackTransport* transport_ = nullptr;
};

}  // namespace postcopy
