#include "platform/poll_set.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "platform/unique_fd.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;

TEST(PollSetTest, TellsByPlaceWhatCanBeRead) {
  const UniqueFd silent(eventfd(0, EFD_CLOEXEC));
  const UniqueFd ready(eventfd(1, EFD_CLOEXEC));
  PollSet set;
  EXPECT_EQ(set.Add(silent.get()), 0u);
  EXPECT_EQ(set.Add(ready.get()), 1u);
  set.Wait(std::nullopt);
  EXPECT_FALSE(set.readable(0));
  EXPECT_TRUE(set.readable(1));
}

TEST(PollSetTest, EndOfThePeerCountsAsReadable) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const UniqueFd read_end(ends[0]);
  close(ends[1]);
  PollSet set;
  set.Add(read_end.get());
  set.Wait(std::nullopt);
  EXPECT_TRUE(set.readable(0));
}

TEST(PollSetTest, TimeoutReportsNothing) {
  const UniqueFd silent(eventfd(0, EFD_CLOEXEC));
  PollSet set;
  set.Add(silent.get());
  for (const milliseconds timeout : {milliseconds(-5), milliseconds(0), milliseconds(1)}) {
    set.Wait(timeout);
    EXPECT_FALSE(set.readable(0));
  }
}

}  // namespace
}  // namespace postcopy
