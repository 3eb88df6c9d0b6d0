// Places of VMs: who may take one, and who waits for it. Sessions in them: source_session_test.cc,
// lost_sessions_test.cc.
#include "relocation/session_table.h"

#include <chrono>
#include <future>
#include <new>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

TEST(SessionTableTest, APlaceIsReservedOnce) {
  SessionTable table;
  const auto place = table.Reserve("web1");
  ASSERT_TRUE(place.ok());
  const absl::Status second = table.Reserve("web1").status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(second.message(), HasSubstr("VM web1 takes part in another relocation already"));
  EXPECT_TRUE(table.Reserve("web2").ok());
}

TEST(SessionTableTest, APlaceWhoseSessionCouldNotBeMadeIsFreeAgain) {
  SessionTable table;
  {
    const auto place = table.Reserve("web1");
    ASSERT_TRUE(place.ok());
    EXPECT_TRUE(table.Find("web1").Busy());
  }
  EXPECT_FALSE(table.Find("web1").Busy());
  EXPECT_TRUE(table.Reserve("web1").ok());
}

TEST(SessionTableTest, AnExceptionFreesThePlace) {
  SessionTable table;
  try {
    const auto place = table.Reserve("web1");
    ASSERT_TRUE(place.ok());
    throw std::bad_alloc();
  } catch (const std::bad_alloc&) {
  }
  EXPECT_FALSE(table.Find("web1").Busy());
}

TEST(SessionTableTest, WhatIsReservedMayBeHandedOver) {
  SessionTable table;
  EXPECT_FALSE(table.MayHandOver("00112233445566778899aabbccddeeff", "web1"));
  const auto place = table.Reserve("web1");
  ASSERT_TRUE(place.ok());
  EXPECT_TRUE(table.MayHandOver("00112233445566778899aabbccddeeff", "web1"));
}

TEST(SessionTableTest, OnlyAVmThatHadNoPlaceIsSettledBecauseItRegisters) {
  SessionTable table;
  EXPECT_TRUE(table.NoteRegistered("web1"));
  EXPECT_FALSE(table.NoteRegistered("web1"));
  table.EndSettling("web1", {.done = true});
  EXPECT_TRUE(table.NoteRegistered("web1"));
  table.EndSettling("web1", {.done = false});
  EXPECT_FALSE(table.NoteRegistered("web1"));
}

TEST(SessionTableTest, AReservedPlaceIsNotSettled) {
  SessionTable table;
  {
    const auto place = table.Reserve("web1");
    ASSERT_TRUE(place.ok());
    EXPECT_FALSE(table.BeginSettling("web1"));
  }
  EXPECT_TRUE(table.BeginSettling("web1"));
}

TEST(SessionTableTest, WhoWantsAPlaceWaitsUntilItIsSettled) {
  SessionTable table;
  ASSERT_TRUE(table.NoteRegistered("web1"));
  auto reserved = std::async(std::launch::async, [&table] { return table.Reserve("web1").status(); });
  EXPECT_EQ(reserved.wait_for(std::chrono::milliseconds(50)), std::future_status::timeout);
  table.EndSettling("web1", {.done = true});
  EXPECT_TRUE(reserved.get().ok());
}

}  // namespace
}  // namespace postcopy
