// An engine that cannot have all of its threads does not start, and ends in order.
#include "gmock/gmock.h"
#include "tests/engine/memory_fixture.h"
#include "tests/no_threads.h"

namespace postcopy {
namespace {

TEST(EngineWithoutThreadsTest, WhicheverThreadIsMissingItDoesNotStart) {
  constexpr uint64_t kPages = 64;
  Source source(kPages);
  // Event reader, who tries again, urgent lane, two bulk lanes, their keeper.
  for (int left = 0; left < 6; ++left) {
    SCOPED_TRACE(left);
    ArmedMemory memory(kPages * kPageBytes, Backing::kFile);
    Engine engine(source.Connect(), memory.device(), {memory.region()});
    threads_left = left;
    const auto started = engine.Start();
    threads_left = -1;
    ASSERT_FALSE(started.ok());
    EXPECT_THAT(started.error().message, testing::HasSubstr("start thread pc-"));
  }
  ArmedMemory memory(kPages * kPageBytes, Backing::kFile);
  Engine engine(source.Connect(), memory.device(), {memory.region()});
  threads_left = 6;
  EXPECT_TRUE(engine.Start().ok());
  threads_left = -1;
}

}  // namespace
}  // namespace postcopy
