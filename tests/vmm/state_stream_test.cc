#include "vmm/state_stream.h"

#include <gtest/gtest.h>

#include "platform/unix_stream.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kLong{10'000};

TEST(StateStreamTest, TakesAllUntilTheWriterCloses) {
  auto ends = MakeStreamPair();
  StateStream stream(std::move(ends->first), 10 << 20);
  const std::string state(3 << 20, 's');
  EXPECT_EQ(SendBytes(ends->second.get(), state, -1, kLong).outcome, StreamOutcome::kDone);
  ends->second.Reset();
  const auto taken = stream.TakeAll(kLong);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(*taken, state);
}

TEST(StateStreamTest, OpenWriterIsATimeoutAndReadingGoesOn) {
  auto ends = MakeStreamPair();
  StateStream stream(std::move(ends->first), 100);
  SendBytes(ends->second.get(), "a", -1, kLong);
  EXPECT_TRUE(absl::IsDeadlineExceeded(stream.TakeAll(milliseconds(20)).status()));
  SendBytes(ends->second.get(), "b", -1, kLong);
  ends->second.Reset();
  EXPECT_EQ(stream.TakeAll(kLong).value(), "ab");
}

TEST(StateStreamTest, AboveTheLimitTheWriterFails) {
  auto ends = MakeStreamPair();
  StateStream stream(std::move(ends->first), 1 << 20);
  const std::string state(8 << 20, 's');
  EXPECT_EQ(SendBytes(ends->second.get(), state, -1, kLong).outcome, StreamOutcome::kClosed);
  EXPECT_TRUE(absl::IsResourceExhausted(stream.TakeAll(kLong).status()));
}

TEST(StateStreamTest, DestructionEndsTheReaderAndTheWriter) {
  auto ends = MakeStreamPair();
  { StateStream stream(std::move(ends->first), 100); }
  EXPECT_EQ(SendBytes(ends->second.get(), "x", -1, kLong).outcome, StreamOutcome::kClosed);
}

}  // namespace
}  // namespace postcopy
