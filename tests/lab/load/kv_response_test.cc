#include "tests/lab/load/kv_response.h"

#include <gtest/gtest.h>

namespace postcopy_lab {
namespace {

using State = KvResponse::State;
using Kind = KvResponse::Kind;

size_t Feed(KvResponse& response, std::string_view bytes) {
  return response.Feed(std::span(bytes.data(), bytes.size()));
}

TEST(KvResponse, TakesAValueInAnyChunks) {
  const std::string whole = "VALUE k17 0 5\r\na\r\nbc\r\nEND\r\n";
  for (size_t cut = 0; cut <= whole.size(); ++cut) {
    KvResponse response;
    EXPECT_EQ(Feed(response, whole.substr(0, cut)), cut);
    EXPECT_EQ(Feed(response, whole.substr(cut)), whole.size() - cut);
    ASSERT_EQ(response.state(), State::kDone) << cut;
    EXPECT_EQ(response.kind(), Kind::kValue);
    EXPECT_EQ(response.key(), "k17");
    EXPECT_EQ(response.value(), "a\r\nbc");
  }
}

TEST(KvResponse, LeavesTheBytesOfTheNextResponse) {
  const std::string two = "STORED\r\nEND\r\n";
  KvResponse response;
  const size_t taken = Feed(response, two);
  EXPECT_EQ(taken, 8u);
  EXPECT_EQ(response.kind(), Kind::kStored);
  EXPECT_EQ(Feed(response, two.substr(taken)), 0u);
  response.Reset();
  EXPECT_EQ(Feed(response, two.substr(taken)), 5u);
  EXPECT_EQ(response.kind(), Kind::kMiss);
}

TEST(KvResponse, AnyOtherLineIsAnErrorOfTheRequest) {
  KvResponse response;
  Feed(response, "SERVER_ERROR out of memory storing object\r\n");
  EXPECT_EQ(response.state(), State::kDone);
  EXPECT_EQ(response.kind(), Kind::kError);
  EXPECT_EQ(response.problem(), "SERVER_ERROR out of memory storing object");
}

TEST(KvResponse, RejectsWhatIsNotTheProtocol) {
  for (const std::string& bytes :
       {std::string("VALUE k17\r\n"), std::string("VALUE k17 0 x\r\n"),
        std::string("VALUE k17 0 99999999\r\n"), std::string("VALUE k17 0 1\r\nabc"),
        std::string("VALUE k17 0 1\r\na\r\nSTORED\r\n"), std::string("STORED\n"),
        std::string(5000, 'x')}) {
    KvResponse response;
    Feed(response, bytes);
    EXPECT_EQ(response.state(), State::kMalformed) << bytes;
    EXPECT_NE(response.problem(), "");
    EXPECT_EQ(Feed(response, "END\r\n"), 0u);
  }
}

}  // namespace
}  // namespace postcopy_lab
