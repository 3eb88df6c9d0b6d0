// The records of a state directory: what is written is read again, what is damaged is told of, and
// nothing else is touched.
#include "server/ownership_store.h"

#include <stdlib.h>
#include <sys/resource.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr const char* kSession = "07000000000000000000000000000000";

class OwnershipStoreTest : public testing::Test {
 protected:
  OwnershipStoreTest() {
    char folder[] = "/tmp/postcopy-store-XXXXXX";
    folder_ = mkdtemp(folder);
    session_.bytes[0] = std::byte{7};
    Open();
  }
  ~OwnershipStoreTest() override { std::filesystem::remove_all(folder_); }

  void Open() { store_ = std::make_unique<OwnershipStore>(*OwnershipStore::Open(folder_)); }

  OwnershipRecord Record(SessionRole role, OwnershipMark mark) {
    return {session_, role, "web1", "there:7700", mark};
  }
  std::string SourcePath() { return folder_ + "/" + kSession + ".source.json"; }

  std::string Content(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  void Put(const std::string& path, const std::string& content) {
    std::ofstream(path, std::ios::trunc) << content;
  }
  // A byte of a file, changed.
  void Damage(const std::string& path, size_t at) {
    std::string content = Content(path);
    content[at] ^= 1;
    Put(path, content);
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

TEST_F(OwnershipStoreTest, AChangeOfMarkStaysInThePlaceOfTheFile) {
  ASSERT_TRUE(store_->Create(Record(SessionRole::kSource, OwnershipMark::kPrepared)).ok());
  std::filesystem::create_hard_link(SourcePath(), folder_ + "/same");
  OwnershipRecord handed_over = Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  handed_over.allocated_bytes = 7 << 20;
  ASSERT_TRUE(store_->Write(handed_over).ok());
  EXPECT_EQ(*store_->Read(session_, SessionRole::kSource), handed_over);
  EXPECT_TRUE(std::filesystem::equivalent(SourcePath(), folder_ + "/same"));
  // What was not there when the session was prepared takes a new file.
  OwnershipRecord more = Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  more.peer = "there:7702";
  ASSERT_TRUE(store_->Write(more).ok());
  EXPECT_EQ(*store_->Read(session_, SessionRole::kSource), more);
}

TEST_F(OwnershipStoreTest, TheOrderIsThatOfTheWritesWhateverTheClockSays) {
  std::vector<std::string> vms;
  for (const int id : {3, 1, 2}) {
    OwnershipRecord record = Record(SessionRole::kSource, OwnershipMark::kPrepared);
    record.session.bytes[1] = static_cast<std::byte>(id);
    record.vm = "vm" + std::to_string(id);
    ASSERT_TRUE(store_->Create(record).ok());
    if (id == 2) Open();  // another daemon goes on counting
  }
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    if (file.path().string().find("0701") != std::string::npos) {
      std::filesystem::last_write_time(file, std::filesystem::file_time_type::clock::now() +
                                                 std::chrono::hours(1));
    }
  }
  OwnershipRecord first = Record(SessionRole::kSource, OwnershipMark::kRolledBack);
  first.session.bytes[1] = std::byte{3};
  first.vm = "vm3";
  ASSERT_TRUE(store_->Write(first).ok());
  const auto records = store_->ReadAll();
  ASSERT_TRUE(records.ok());
  for (const OwnershipRecord& record : records->readable) vms.push_back(record.vm);
  EXPECT_THAT(vms, ElementsAre("vm1", "vm2", "vm3"));
}

TEST_F(OwnershipStoreTest, ADamagedCopyIsRepairedByTheNextDaemon) {
  const OwnershipRecord record = Record(SessionRole::kSource, OwnershipMark::kHandedOver);
  ASSERT_TRUE(store_->Create(record).ok());
  const std::string whole = Content(SourcePath());
  Damage(SourcePath(), 100);
  EXPECT_EQ(*store_->Read(session_, SessionRole::kSource), record);
  Open();
  EXPECT_EQ(Content(SourcePath()), whole);
  // And by the next write.
  Damage(SourcePath(), kOwnershipBlockBytes + 600);
  ASSERT_TRUE(store_->Write(record).ok());
  EXPECT_TRUE(ParseOwnershipFile(Content(SourcePath())).whole);
}

TEST_F(OwnershipStoreTest, WhatCannotBeReadIsToldOf) {
  ASSERT_TRUE(store_->Create(Record(SessionRole::kSource, OwnershipMark::kHandedOver)).ok());
  Damage(SourcePath(), 100);
  Damage(SourcePath(), kOwnershipBlockBytes + 100);
  const absl::Status read = store_->Read(session_, SessionRole::kSource).status();
  EXPECT_EQ(read.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(read.message()), HasSubstr(SourcePath()));
  Open();  // it stays
  for (const char* vm : {"web1", "another"}) {
    const auto records = store_->ReadAll(vm);
    ASSERT_TRUE(records.ok());
    EXPECT_THAT(records->readable, IsEmpty());
    ASSERT_THAT(records->unreadable, SizeIs(vm == std::string("web1") ? 1 : 0)) << vm;
  }
  const UnreadableRecord unreadable = store_->ReadAll()->unreadable[0];
  EXPECT_EQ(unreadable.path, SourcePath());
  EXPECT_EQ(unreadable.session, session_);
  EXPECT_EQ(unreadable.role, SessionRole::kSource);
  EXPECT_EQ(unreadable.details->vm, "web1");
  // Of one that is nothing any more, any VM might be meant.
  Put(SourcePath(), "");
  EXPECT_THAT(store_->ReadAll("another")->unreadable, SizeIs(1));
}

TEST_F(OwnershipStoreTest, ARecordUnderAnotherNameIsNotThatOne) {
  ASSERT_TRUE(store_->Create(Record(SessionRole::kSource, OwnershipMark::kPrepared)).ok());
  const std::string other = folder_ + "/08000000000000000000000000000000.source.json";
  std::filesystem::rename(SourcePath(), other);
  EXPECT_THAT(store_->ReadAll()->readable, IsEmpty());
  EXPECT_EQ(store_->ReadAll()->unreadable.at(0).path, other);
}

TEST_F(OwnershipStoreTest, WithoutDescriptorsNothingIsKnown) {
  ASSERT_TRUE(store_->Create(Record(SessionRole::kSource, OwnershipMark::kPrepared)).ok());
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{0, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const absl::Status all = store_->ReadAll().status();
  const absl::Status one = store_->Read(session_, SessionRole::kSource).status();
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(all.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(one.code(), absl::StatusCode::kUnavailable);
}

TEST_F(OwnershipStoreTest, RecordsOfEarlierVersionsAreTakenOver) {
  const std::string old = folder_ + "/" + kSession + ".json";
  Put(old, std::string(R"({"mark":"owner","peer":"there:7700","run":true,"session":")") + kSession +
               R"(","vm":"web1","vmm-pid":1234})" "\n");
  const std::string damaged = folder_ + "/08000000000000000000000000000000.json";
  Put(damaged, "{");
  Open();
  EXPECT_FALSE(std::filesystem::exists(old));
  const auto taken = store_->Read(session_, SessionRole::kDestination);
  ASSERT_TRUE(taken.ok()) << taken.status();
  EXPECT_EQ(taken->mark, OwnershipMark::kOwner);
  EXPECT_EQ(taken->vmm.pid, 1234);
  EXPECT_EQ(store_->ReadAll()->unreadable.at(0).path, damaged);
}

}  // namespace
}  // namespace postcopy
