#include "engine/keepsake.h"

#include "gmock/gmock.h"
#include "platform/duplicate_fd.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

wire::KeepsakeHeader Header() {
  wire::KeepsakeHeader header;
  header.session.bytes[0] = std::byte{1};
  header.regions = {{{"ram", 8 * kPageBytes}, 0x10000000}, {{"more", 2 * kPageBytes}, 0x20000000}};
  header.data_addresses = {"127.0.0.1:7701"};
  return header;
}

Keepsake Made() {
  auto made = Keepsake::Make(Header());
  EXPECT_TRUE(made.ok()) << made.error().message;
  return std::move(*made);
}

TEST(KeepsakeTest, WhoComesNextReadsWhatWasKept) {
  Keepsake made = Made();
  ASSERT_EQ(made.page_bytes().size(), 10u);
  made.page_bytes()[9] = 2;
  EXPECT_EQ(made.resumed_at_us(), 0);
  made.NoteResumed(1234567);
  auto opened = Keepsake::Open(std::move(*DuplicateFd(made.memfd())));
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  EXPECT_TRUE(opened->header() == Header());
  EXPECT_EQ(opened->layout().regions[1].name, "more");
  EXPECT_EQ(opened->page_bytes()[9], 2);
  EXPECT_EQ(opened->page_bytes()[8], 0);
  EXPECT_EQ(opened->resumed_at_us(), 1234567);
}

TEST(KeepsakeTest, AnotherFileIsRefusedInWords) {
  const auto why_not = [](Result<SealedMemory> memory) {
    auto opened = Keepsake::Open(std::move(*DuplicateFd(memory->memfd())));
    return opened.ok() ? "opened" : opened.error().message;
  };
  EXPECT_THAT(why_not(SealedMemory::Make("test", 1)), HasSubstr("does not begin as one"));
  EXPECT_THAT(why_not(SealedMemory::Make("test", 1 << 20)), HasSubstr("does not begin as one"));
  for (const int64_t more : {-1, 1}) {
    auto memory =
        SealedMemory::Make("test", wire::kKeepsakeHeaderBytes + 10 + static_cast<uint64_t>(more));
    const auto header = wire::EncodeKeepsakeHeader(Header());
    std::copy(header.begin(), header.end(), memory->bytes().begin());
    EXPECT_THAT(why_not(std::move(memory)), HasSubstr("65546 are needed"));
  }
}

TEST(KeepsakeTest, AHeaderThatBreaksALimitIsRefused) {
  auto header = Header();
  header.data_addresses.clear();
  EXPECT_EQ(Keepsake::Make(header).error().code, ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace postcopy
