#include "server/ownership_record.h"

#include <gtest/gtest.h>

namespace postcopy {
namespace {

constexpr OwnershipMark kMarks[] = {
    OwnershipMark::kPrepared,   OwnershipMark::kOffered,    OwnershipMark::kHandedOver,
    OwnershipMark::kRolledBack, OwnershipMark::kOwner,      OwnershipMark::kNever,
    OwnershipMark::kArrived,    OwnershipMark::kIncomplete, OwnershipMark::kCommitted};

SessionRole RoleOf(OwnershipMark mark) {
  return mark == OwnershipMark::kPrepared || mark == OwnershipMark::kHandedOver ||
                 mark == OwnershipMark::kRolledBack || mark == OwnershipMark::kCommitted
             ? SessionRole::kSource
             : SessionRole::kDestination;
}

OwnershipRecord Record(std::string vm, std::string peer) {
  OwnershipRecord record;
  record.session.bytes[0] = std::byte{7};
  record.vm = std::move(vm);
  record.peer = std::move(peer);
  return record;
}

TEST(OwnershipRecordTest, EveryMarkComesBack) {
  for (const OwnershipMark mark : kMarks) {
    for (const bool run : {true, false}) {
      OwnershipRecord record = Record("web1", "there:7700");
      record.mark = mark;
      record.role = RoleOf(mark);
      record.run = run;
      const auto content = FormatOwnershipRecord(record);
      ASSERT_TRUE(content.has_value()) << NameOf(mark);
      EXPECT_EQ(content->size(), kOwnershipRecordBytes);
      EXPECT_EQ(ParseOwnershipRecord(*content), record) << NameOf(mark);
    }
  }
}

// The longest name that a VM may have, and the longest name that a host may have, with a port.
TEST(OwnershipRecordTest, LongNamesComeBackWhole) {
  std::string address(253, 'h');
  address += ":65535";
  OwnershipRecord source = Record(std::string(128, 'v'), address);
  source.keep_source = true;
  OwnershipRecord destination = Record(std::string(128, 'v'), address);
  destination.vmm_pid = 4'194'304;  // the kernel's largest
  for (const OwnershipRecord& record : {source, destination}) {
    const auto content = FormatOwnershipRecord(record);
    ASSERT_TRUE(content.has_value());
    EXPECT_EQ(ParseOwnershipRecord(*content), record);
  }
}

TEST(OwnershipRecordTest, AProcessNumberThatIsNoneIsNoRecord) {
  OwnershipRecord record = Record("web1", "there:7700");
  record.vmm_pid = 1234;
  const std::string content = *FormatOwnershipRecord(record);
  for (const char* other : {"0", "-1", "1.5", "true", "4294967296", "\"1\""}) {
    std::string changed = content;
    changed.replace(changed.find("1234"), 4, other);
    EXPECT_FALSE(ParseOwnershipRecord(changed).has_value()) << other;
  }
}

TEST(OwnershipRecordTest, NamesThatDoNotFitAreRefusedAtTheFirstMark) {
  std::string peer = "h";
  while (FormatOwnershipRecord(Record("web1", peer)).has_value()) peer += 'h';
  for (const OwnershipMark mark : kMarks) {
    OwnershipRecord record = Record("web1", peer);
    record.mark = mark;
    record.role = RoleOf(mark);
    record.run = false;
    EXPECT_FALSE(FormatOwnershipRecord(record).has_value()) << NameOf(mark);
    record.peer.pop_back();
    EXPECT_TRUE(FormatOwnershipRecord(record).has_value()) << NameOf(mark);
  }
}

TEST(OwnershipRecordTest, NamesThatJsonWritesLongerAreWholeOrRefused) {
  for (const std::string& name : {std::string(80, '\x01'), std::string(80, '"'),
                                  std::string("\xff"), std::string(60, '\\')}) {
    const OwnershipRecord record = Record(name, name);
    const auto content = FormatOwnershipRecord(record);
    EXPECT_EQ(content.has_value() ? ParseOwnershipRecord(*content) : record, record);
  }
  EXPECT_FALSE(FormatOwnershipRecord(Record("web1", std::string(80, '\x01'))).has_value());
  EXPECT_FALSE(FormatOwnershipRecord(Record("web1", "\xff")).has_value());
  EXPECT_TRUE(FormatOwnershipRecord(Record(std::string(128, '"'), "there:7700")).has_value());
}

TEST(OwnershipRecordTest, AnythingElseIsNoRecord) {
  const std::string session = "07000000000000000000000000000000";
  for (const std::string& content :
       {std::string(), std::string("{"), std::string("[]"), std::string(512, '\0'),
        std::string(512, '['), R"({"session":")" + session + R"(","mark":"owner"})",
        R"({"session":")" + session + R"(","mark":"owned","run":true})",
        R"({"session":")" + session + R"(","mark":"owner","run":1})",
        std::string(R"({"session":"7","mark":"owner","run":true})")}) {
    EXPECT_FALSE(ParseOwnershipRecord(content).has_value()) << content;
  }
  EXPECT_TRUE(ParseOwnershipRecord(R"({"session":")" + session + R"(","mark":"owner","run":true})"));
}

}  // namespace
}  // namespace postcopy
