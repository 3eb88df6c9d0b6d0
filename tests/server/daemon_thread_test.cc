#include "server/daemon_thread.h"

#include <atomic>
#include <chrono>
#include <new>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

TEST(DaemonThreadTest, WhatItsBodyThrowsDoesNotEndTheProgram) {
  std::atomic<int> runs = 0;
  auto thread = DaemonThread::Start(
      "test",
      [&runs] {
        if (++runs < 3) throw std::bad_alloc();
      },
      std::chrono::milliseconds(1));
  ASSERT_TRUE(thread.ok()) << thread.status();
  thread->Join();
  EXPECT_EQ(runs, 3);
}

TEST(DaemonThreadTest, IsJoinedWhenItIsReplacedAndWhenItGoes) {
  std::atomic<int> ended = 0;
  {
    DaemonThread thread;
    thread.Join();  // none: nothing to wait for
    for (int i = 1; i <= 2; ++i) {
      auto next = DaemonThread::Start("test", [&ended] { ++ended; });
      ASSERT_TRUE(next.ok()) << next.status();
      thread = *std::move(next);
      EXPECT_GE(ended, i - 1);
    }
  }
  EXPECT_EQ(ended, 2);
}

}  // namespace
}  // namespace postcopy
