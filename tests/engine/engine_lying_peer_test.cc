// The engine against a page server, or states of pages, that describe other memory than the VM's.
#include <atomic>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "tests/engine/engine_faults_fixture.h"

namespace postcopy {
namespace {

using std::chrono::seconds;
using testing::HasSubstr;

TEST_F(EngineFaultsTest, AMapThatNeverEndsIsKnownToBeAwaited) {
  Begin();
  transport_->SetMap({{{0}, {{{100}, 50}}, false}});
  EXPECT_FALSE(engine_->map_awaited_since().has_value());
  const TimePoint before = std::chrono::steady_clock::now();
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_TRUE(engine_->map_awaited_since().has_value());
  EXPECT_GE(*engine_->map_awaited_since(), before);
  transport_->sink().OnMap({{0}, {}, true});
  EXPECT_FALSE(engine_->map_awaited_since().has_value());
}

TEST_F(EngineFaultsTest, MapOutOfOrderIsAFailure) {
  Begin();
  transport_->SetMap({{{0}, {{{100}, 50}}, false}, {{0}, {{{120}, 1}}, true}});
  engine_->StartBulk();
  transport_->DeliverAll();
  ASSERT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kFailed);
  EXPECT_THAT(engine_->failure()->message, HasSubstr("hole map is out of order"));
}

TEST_F(EngineFaultsTest, MemoryThatIsNotTheSourcesIsNeverTouched) {
  const MappedRegion ram = regions_[0];
  const std::pair<MemoryLayout, const char*> layouts[] = {
      {{{{"ram", ram.size_bytes}, {"evil", 1024 * ram.size_bytes}}}, "2 RAM blocks, the VM has 1"},
      {{{{"ram", 1024 * ram.size_bytes}}}, "RAM block ram with 4294967296 bytes"},
      {{{{"ram", kPageBytes}}}, "RAM block ram with 4096 bytes"},
  };
  for (const auto& [layout, cause] : layouts) {
    // The first half is as large as this VM's memory; behind it begins what is somebody else's.
    std::vector<std::atomic<uint8_t>> bytes(2 * kPages);
    engine_.emplace(std::make_unique<LoopbackTransport>(layout, 1), device_, regions_,
                    EngineOptions{.page_bytes = std::span(bytes).first(kPages)});
    engine_->MarkAllocated({1}, {{0}, 1});
    engine_->MarkAllocated({0}, {{kPages - 1}, 2});
    const auto started = engine_->Start();
    ASSERT_FALSE(started.ok()) << cause;
    EXPECT_EQ(started.error().code, ErrorCode::kMismatch);
    EXPECT_THAT(started.error().message, HasSubstr(cause));
    for (const auto& byte : bytes) ASSERT_EQ(byte.load(), 0);
  }
}

TEST_F(EngineFaultsTest, PageStatesOfOtherMemoryAreNotUsed) {
  std::vector<std::atomic<uint8_t>> bytes(kPages - 1);
  for (const bool takes_up : {false, true}) {
    engine_.emplace(std::make_unique<LoopbackTransport>(layout_), device_, regions_,
                    EngineOptions{.page_bytes = bytes, .takes_up = takes_up});
    const auto started = engine_->Start();
    ASSERT_FALSE(started.ok());
    EXPECT_EQ(started.error().message, "page states: 1023 of 1024 pages");
  }
}

TEST_F(EngineFaultsTest, PagesOutsideGuestRamAreAFailureAndNoIndex) {
  const std::vector<std::byte> page(kPageBytes);
  const auto fails = [&](const auto& say) {
    Begin();
    say(transport_->sink());
    EXPECT_EQ(engine_->WaitComplete(seconds(5)), Engine::Wait::kFailed);
    EXPECT_THAT(engine_->failure()->message, HasSubstr("outside guest RAM"));
    EXPECT_THAT(FilledPages(), testing::IsEmpty());
    engine_.reset();
  };
  using wire::Encoding;
  fails([&](PageSink& sink) { sink.OnPage(1, {{1}, {0}}, Encoding::kRaw, page); });
  fails([&](PageSink& sink) { sink.OnPage(1, {{0}, {kPages}}, Encoding::kRaw, page); });
  fails([&](PageSink& sink) { sink.OnRun(0, {0}, {{kPages - 1}, 2}, Encoding::kZero, {}); });
  fails([&](PageSink& sink) { sink.OnRun(0, {77}, {{0}, 1}, Encoding::kZero, {}); });
  fails([&](PageSink& sink) { sink.OnMap({{3}, {{{0}, 1}}, true}); });
  fails([&](PageSink& sink) { sink.OnMap({{0}, {{{kPages - 1}, 2}}, true}); });
}

}  // namespace
}  // namespace postcopy
