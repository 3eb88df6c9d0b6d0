#include "server/ownership_record.h"

#include <gtest/gtest.h>

namespace postcopy {
namespace {

constexpr OwnershipMark kMarks[] = {
    OwnershipMark::kPrepared,   OwnershipMark::kOffered,    OwnershipMark::kHandedOver,
    OwnershipMark::kRolledBack, OwnershipMark::kOwner,      OwnershipMark::kNever,
    OwnershipMark::kArrived,    OwnershipMark::kIncomplete, OwnershipMark::kCommitted};

OwnershipRecord Source() {
  OwnershipRecord record;
  record.session.bytes[0] = std::byte{7};
  record.vm = "web1";
  record.peer = "there:7700";
  record.vmm = {1234, 567890123, "1b4e28ba-2fa1-11d2-883f-0016d3cca427"};
  record.memory = {{"ram", "/dev/shm/web 1%\xff\n", {21, 7}, 4096, 1 << 30},
                   {"dimm0", "/dev/hugepages/web1", {22, ~uint64_t{0}}, 0, 1 << 21}};
  return record;
}

OwnershipRecord Destination() {
  OwnershipRecord record = Source();
  record.role = SessionRole::kDestination;
  record.mark = OwnershipMark::kOffered;
  record.memory.clear();
  return record;
}

std::optional<OwnershipRecord> ReadBack(const OwnershipRecord& record) {
  const auto content = FormatOwnershipFile(record, 9);
  return content.has_value() ? ParseOwnershipFile(*content).record : std::nullopt;
}

TEST(OwnershipRecordTest, EveryMarkOfARoleComesBack) {
  for (OwnershipRecord record : {Source(), Destination()}) {
    int fit = 0;
    for (const OwnershipMark mark : kMarks) {
      for (const bool run : {true, false}) {
        record.mark = mark;
        record.run = run;
        if (!FormatOwnershipFile(record, 9).has_value()) continue;
        ++fit;
        EXPECT_EQ(ReadBack(record), record) << NameOf(mark);
      }
    }
    EXPECT_EQ(fit, record.role == SessionRole::kSource ? 8 : 12);
  }
}

TEST(OwnershipRecordTest, WhatASourceRecordsBesidesComesBack) {
  for (const bool flag : {true, false}) {
    OwnershipRecord record = Source();
    record.allocated_bytes = ~uint64_t{0};
    record.to_resume = flag;
    record.ran_there = !flag;
    record.emptied_at_end = {"mem 0", "mem1"};
    EXPECT_EQ(ReadBack(record), record);
  }
}

TEST(OwnershipRecordTest, AllOfTheLineFitsIntoIt) {
  OwnershipRecord record = Destination();  // the longer name of a role
  record.mark = OwnershipMark::kIncomplete;
  record.allocated_bytes = ~uint64_t{0};
  record.run = record.to_resume = record.ran_there = false;  // longer than true
  const auto content = FormatOwnershipFile(record, ~uint64_t{0});
  ASSERT_TRUE(content.has_value());
  const ParsedOwnership parsed = ParseOwnershipFile(*content);
  EXPECT_EQ(parsed.record, record);
  EXPECT_EQ(parsed.sequence, ~uint64_t{0});
}

TEST(OwnershipRecordTest, AFileIsTwoCopiesOfWholeBlocks) {
  const auto content = FormatOwnershipFile(Source(), 9);
  ASSERT_TRUE(content.has_value());
  EXPECT_EQ(content->size(), 2 * kOwnershipBlockBytes);
  EXPECT_EQ(content->substr(0, kOwnershipBlockBytes), content->substr(kOwnershipBlockBytes));
  EXPECT_EQ(OwnershipLineOffsets(*content), (std::vector<uint64_t>{0, kOwnershipBlockBytes}));
  const ParsedOwnership parsed = ParseOwnershipFile(*content);
  EXPECT_TRUE(parsed.whole);
  EXPECT_EQ(parsed.sequence, 9u);
}

TEST(OwnershipRecordTest, LongRecordsTakeMoreBlocks) {
  OwnershipRecord record = Source();
  for (int i = 0; i < 64; ++i) record.memory.push_back({"dimm", std::string(900, 'p'), {1, 2}, 0, 4096});
  EXPECT_EQ(ReadBack(record), record);
  record.peer = std::string(kMaxOwnershipFileBytes, 's');
  EXPECT_FALSE(FormatOwnershipFile(record, 9).has_value());
}

TEST(OwnershipRecordTest, NamesThatAreNoTextAreRefused) {
  OwnershipRecord record = Source();
  record.vm = "\xff";
  EXPECT_FALSE(FormatOwnershipFile(record, 9).has_value());
  record.vm = std::string(200, '\x01') + std::string(200, '"') + "\\";
  EXPECT_EQ(ReadBack(record), record);
}

// ThreadSanitizer has nothing to find in one thread and takes its time: there some of the places only.
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
constexpr size_t kPlaces = 16;
#else
constexpr size_t kPlaces = 1;
#endif
#else
constexpr size_t kPlaces = 1;
#endif

// Whatever byte is damaged, and however: the other copy says what was written.
TEST(OwnershipRecordTest, NoDamagedByteChangesWhatIsRead) {
  const OwnershipRecord record = Source();
  const std::string content = *FormatOwnershipFile(record, 9);
  for (size_t at = 0; at < content.size(); at += kPlaces) {
    for (const unsigned char flipped : {0x01, 0x80, 0x2a}) {
      std::string damaged = content;
      damaged[at] = static_cast<char>(static_cast<unsigned char>(damaged[at]) ^ flipped);
      const ParsedOwnership parsed = ParseOwnershipFile(damaged);
      ASSERT_EQ(parsed.record, record) << at;
      ASSERT_FALSE(parsed.whole) << at;
    }
  }
}

// A change is one line in each of two places. Cut off after any byte of either, the file reads as
// the record before it or as the one after it.
TEST(OwnershipRecordTest, AWriteThatWasCutOffReadsAsOldOrNew) {
  OwnershipRecord before = Source();
  OwnershipRecord after = before;
  after.mark = OwnershipMark::kHandedOver;
  after.run = false;
  const std::string content = *FormatOwnershipFile(before, 9);
  const std::string line = FormatOwnershipLine(after, 10);
  ASSERT_EQ(line.size(), kOwnershipLineBytes);
  for (size_t first = 0; first <= line.size(); first += kPlaces) {
    for (const size_t second : {size_t{0}, line.size() / 2, line.size()}) {
      std::string torn = content;
      torn.replace(0, first, line, 0, first);
      torn.replace(kOwnershipBlockBytes, second, line, 0, second);
      const ParsedOwnership parsed = ParseOwnershipFile(torn);
      const bool both_damaged = first != 0 && first != line.size() && second != 0 &&
                                second != line.size();
      if (both_damaged) continue;  // not one sector that is whole: a disk does not do that
      ASSERT_TRUE(parsed.record == before || parsed.record == after) << first << " " << second;
      if (second != line.size()) continue;
      ASSERT_EQ(parsed.record, after) << first;
    }
  }
}

TEST(OwnershipRecordTest, AFileThatWasCutShortReadsAsLongAsACopyIsWhole) {
  const OwnershipRecord record = Source();
  const std::string content = *FormatOwnershipFile(record, 9);
  for (size_t size = 0; size < content.size(); size += 64) {
    const ParsedOwnership parsed = ParseOwnershipFile(content.substr(0, size));
    EXPECT_EQ(parsed.record.has_value(), size >= kOwnershipBlockBytes) << size;
    EXPECT_FALSE(parsed.whole) << size;
  }
}

TEST(OwnershipRecordTest, WithoutALineTheDetailsAreKnown) {
  std::string content = *FormatOwnershipFile(Source(), 9);
  content[20] ^= 1;
  content[kOwnershipBlockBytes + 20] ^= 1;
  const ParsedOwnership parsed = ParseOwnershipFile(content);
  EXPECT_FALSE(parsed.record.has_value());
  ASSERT_TRUE(parsed.details.has_value());
  EXPECT_EQ(parsed.details->vm, "web1");
  EXPECT_EQ(parsed.details->memory, Source().memory);
}

TEST(OwnershipRecordTest, AnythingElseIsNoRecord) {
  for (const std::string& content :
       {std::string(), std::string("{"), std::string("[]"), std::string(8192, '\0'),
        std::string(8192, '['), std::string(R"({"crc":"00000000","mark":"owner"})")}) {
    EXPECT_FALSE(ParseOwnershipFile(content).record.has_value()) << content;
    EXPECT_FALSE(ParseOldOwnershipRecord(content).has_value()) << content;
  }
  EXPECT_FALSE(ParseOldOwnershipRecord(*FormatOwnershipFile(Source(), 9)).has_value());
}

TEST(OwnershipRecordTest, RecordsOfEarlierVersionsAreRead) {
  const std::string session = "07000000000000000000000000000000";
  const auto source = ParseOldOwnershipRecord(
      R"({"keep-source":true,"mark":"handed-over","peer":"there:7700","run":false,"session":")" +
      session + R"(","vm":"web1"})" + std::string(300, ' ') + "\n");
  OwnershipRecord expected = Source();
  expected.mark = OwnershipMark::kHandedOver;
  expected.run = false;
  expected.keep_source = true;
  expected.vmm = {};
  expected.memory.clear();
  EXPECT_EQ(source, expected);
  // Only a destination recorded its VMM, and a mark that both may have does not tell the role.
  const auto destination = ParseOldOwnershipRecord(
      R"({"mark":"committed","peer":"there:7700","run":true,"session":")" + session +
      R"(","vm":"web1","vmm-pid":1234})");
  ASSERT_TRUE(destination.has_value());
  EXPECT_EQ(destination->role, SessionRole::kDestination);
  EXPECT_EQ(destination->vmm, (ProcessIdentity{1234, 0, ""}));
}

}  // namespace
}  // namespace postcopy
