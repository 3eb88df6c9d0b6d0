// The page path allocates nothing: 10,000 pages by demand and in bulk, over real memory, a real
// userfaultfd, TCP and the page server, all threads of both ends counted.
#include <atomic>
#include <cstdlib>
#include <new>

#include "gtest/gtest.h"
#include "tests/engine/memory_fixture.h"

namespace {

std::atomic<bool> counting{false};
std::atomic<uint64_t> allocations{0};

void* Allocate(std::size_t size) {
  if (counting.load(std::memory_order_relaxed)) allocations.fetch_add(1, std::memory_order_relaxed);
  void* const memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) std::abort();
  return memory;
}

}  // namespace

void* operator new(std::size_t size) { return Allocate(size); }
void* operator new[](std::size_t size) { return Allocate(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }

namespace postcopy {
namespace {

constexpr uint64_t kDemandPages = 10000;
constexpr uint64_t kWarmUpPages = 200;
constexpr uint64_t kBulkPages = 20000;

class AllocationTest : public testing::TestWithParam<Backing> {};
INSTANTIATE_TEST_SUITE_P(Backings, AllocationTest,
                         testing::Values(Backing::kFile, Backing::kAnonymous),
                         [](const auto& instance) {
                           return instance.param == Backing::kFile ? "File" : "Anonymous";
                         });

TEST(AllocationCountTest, CountsWhatIsAllocated) {
  allocations = 0;
  counting = true;
  ::operator delete(::operator new(1));
  counting = false;
  EXPECT_EQ(allocations, 1u);
}

TEST_P(AllocationTest, TenThousandFaultsAllocateNothingAfterWarmUp) {
  Source source(kWarmUpPages + kDemandPages);
  ArmedMemory memory((kWarmUpPages + kDemandPages) * kPageBytes, GetParam());
  FaultTrace trace;
  Engine engine(source.Connect(), memory.device(), {memory.region()}, {.trace = &trace});
  ASSERT_TRUE(engine.Start().ok());
  uint64_t sum = 0;
  const auto touch = [&](uint64_t page) {
    sum += static_cast<uint64_t>(*static_cast<volatile std::byte*>(memory.memory() + page * kPageBytes));
  };
  for (uint64_t page = 0; page < kWarmUpPages; ++page) touch(page);
  allocations = 0;
  counting = true;
  for (uint64_t page = kWarmUpPages; page < kWarmUpPages + kDemandPages; ++page) touch(page);
  counting = false;
  EXPECT_EQ(allocations, 0u);
  EXPECT_EQ(engine.Figures().faults.faults, kWarmUpPages + kDemandPages);
  EXPECT_GT(sum, 0u);
}

TEST_P(AllocationTest, BulkAllocatesNothingOnceItRuns) {
  Source source(kBulkPages);
  ArmedMemory memory(kBulkPages * kPageBytes, GetParam());
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  ASSERT_TRUE(engine.Start().ok());
  engine.StartBulk();
  // The map's extents are vectors; the first bytes of content say that it has come.
  while (engine.Figures().bulk_bytes == 0) std::this_thread::yield();
  const uint64_t before = engine.Figures().bulk_bytes;
  allocations = 0;
  counting = true;
  const auto waited = engine.WaitComplete(std::chrono::seconds(60));
  counting = false;
  EXPECT_EQ(waited, Engine::Wait::kComplete);
  EXPECT_EQ(allocations, 0u);
  EXPECT_GT(engine.Figures().bulk_bytes - before, kBulkPages / 10 * kPageBytes);
}

}  // namespace
}  // namespace postcopy
