// What a visitor takes for right: accounts' states, contents, and the time that a line takes.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/lab/load/account_book.h"
#include "tests/lab/load/content_check.h"
#include "tests/lab/load/line_limit.h"

namespace postcopy_lab {
namespace {

using std::chrono::milliseconds;

std::string BodyOf(uint64_t key, size_t size) {
  std::string body;
  for (uint64_t i = 0; body.size() < size; ++i) {
    const uint64_t word = lab_web_word(key, i);
    body.append(reinterpret_cast<const char*>(&word), sizeof word);
  }
  body.resize(size);
  return body;
}

TEST(AccountBook, PagesDependOnAllVisitsBeforeThem) {
  AccountBook book(1), again(1);
  EXPECT_EQ(book.Next(5, LAB_WEB_BANKING, 0).key, again.Next(5, LAB_WEB_BANKING, 0).key);
  book.Next(5, LAB_WEB_BANKING, 1);
  again.Next(5, LAB_WEB_BANKING, 2);
  const auto visit = book.Next(5, LAB_WEB_BANKING, 3);
  EXPECT_EQ(visit.number, 2u);
  EXPECT_NE(visit.key, again.Next(5, LAB_WEB_BANKING, 3).key);
}

TEST(AccountBook, AnAccountHasOneVisitorAndRemembersTheLast) {
  AccountBook book(1);
  Random random(1);
  std::vector<bool> taken(LAB_WEB_ACCOUNTS);
  for (int i = 0; i < LAB_WEB_ACCOUNTS; ++i) {
    const uint32_t account = *book.Take(random);
    EXPECT_FALSE(taken[account]);
    taken[account] = true;
  }
  EXPECT_EQ(book.Take(random), std::nullopt);
  book.Next(77, LAB_WEB_SUPPORT, 0);
  book.Return(77);
  EXPECT_EQ(book.Take(random), 77u);
  EXPECT_EQ(book.Next(77, LAB_WEB_SUPPORT, 0).number, 1u);
}

TEST(ContentCheck, TakesABodyInAnyChunksAndFindsOneWrongByte) {
  const std::string body = BodyOf(42, 1001);
  for (const size_t chunk : {1u, 3u, 8u, 500u, 2000u}) {
    for (const bool spoil : {false, true}) {
      std::string fed = body;
      if (spoil) fed.back() = static_cast<char>(fed.back() ^ 1);
      ContentCheck check;
      check.Start(42);
      for (size_t at = 0; at < fed.size(); at += chunk) {
        check.Feed(std::span(fed).subspan(at, std::min(chunk, fed.size() - at)));
      }
      EXPECT_EQ(check.bytes(), 1001u);
      EXPECT_EQ(check.right(), !spoil) << chunk;
    }
  }
}

TEST(LineLimit, BytesArriveWithTimeAndCatchUp) {
  const LineLimit::Clock::time_point sent{std::chrono::seconds(100)};
  LineLimit limit;
  limit.Start(sent, 100'000);
  EXPECT_EQ(limit.Allowance(sent, 0), 1448u);
  EXPECT_EQ(limit.Allowance(sent, 1448), 0u);
  EXPECT_EQ(limit.Allowance(sent + milliseconds(100), 1448), 10'000u);
  EXPECT_EQ(limit.Allowance(sent + milliseconds(100), 90'000), 0u);
  // The rest of a body of 11,448 bytes has arrived after 100 ms.
  EXPECT_EQ(limit.NextLook(sent + milliseconds(90), 11'448), sent + milliseconds(100));
  EXPECT_EQ(limit.NextLook(sent + milliseconds(10), 11'448), sent + milliseconds(30));
  EXPECT_GT(limit.NextLook(sent + milliseconds(200), 11'448), sent + milliseconds(200));
}

TEST(LineLimit, ZeroIsNoLimit) {
  LineLimit limit;
  limit.Start({}, 0);
  EXPECT_GT(limit.Allowance({}, 1'000'000'000), uint64_t{1} << 60);
}

}  // namespace
}  // namespace postcopy_lab
