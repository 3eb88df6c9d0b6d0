// The records of a state directory: what is written is read again, and nothing else is touched.
#include "server/ownership_store.h"

#include <stdlib.h>

#include <filesystem>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

class OwnershipStoreTest : public testing::Test {
 protected:
  OwnershipStoreTest() {
    char folder[] = "/tmp/postcopy-store-XXXXXX";
    folder_ = mkdtemp(folder);
    session_.bytes[0] = std::byte{7};
    store_ = std::make_unique<OwnershipStore>(*OwnershipStore::Open(folder_));
  }
  ~OwnershipStoreTest() override { std::filesystem::remove_all(folder_); }

  OwnershipRecord Record(SessionRole role, OwnershipMark mark) {
    return {session_, role, "web1", "there:7700", mark};
  }

  std::string folder_;
  SessionId session_{};
  std::unique_ptr<OwnershipStore> store_;
};

TEST_F(OwnershipStoreTest, BothRolesOfOneSessionHaveRecords) {
  const OwnershipRecord source = Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  const OwnershipRecord destination = Record(SessionRole::kDestination, OwnershipMark::kOwner);
  ASSERT_TRUE(store_->Create(source).ok());
  ASSERT_TRUE(store_->Create(destination).ok());
  EXPECT_EQ(*store_->Read(session_, SessionRole::kSource), source);
  EXPECT_EQ(*store_->Read(session_, SessionRole::kDestination), destination);
  store_->Remove(session_, SessionRole::kDestination);
  EXPECT_EQ(*store_->Read(session_, SessionRole::kSource), source);
}

TEST_F(OwnershipStoreTest, ARecordIsCreatedOnceOnly) {
  const OwnershipRecord first = Record(SessionRole::kDestination, OwnershipMark::kOwner);
  ASSERT_TRUE(store_->Create(first).ok());
  EXPECT_EQ(store_->Create(Record(SessionRole::kDestination, OwnershipMark::kOffered)).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(*store_->Read(session_, SessionRole::kDestination), first);
}

TEST_F(OwnershipStoreTest, AMarkOfTheOtherRoleIsNoRecord) {
  EXPECT_EQ(store_->Create(Record(SessionRole::kSource, OwnershipMark::kOwner)).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace postcopy
