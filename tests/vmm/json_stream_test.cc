#include "vmm/json_stream.h"

#include <string>
#include <string_view>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "vmm/json_access.h"

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr const char* kNoObject =
    "something was sent that is not a JSON object of at most 1024 levels";

// The objects of `text`, fed in pieces of `piece_bytes`; the error, if any, last.
std::vector<std::string> Objects(std::string_view text, size_t piece_bytes, size_t max_bytes = 100) {
  JsonStream stream(max_bytes);
  std::vector<std::string> objects;
  for (; !text.empty(); text.remove_prefix(std::min(piece_bytes, text.size()))) {
    const absl::Status fed =
        stream.Feed(text.substr(0, piece_bytes), [&objects](std::string_view object) {
          objects.emplace_back(object);
          return absl::OkStatus();
        });
    if (!fed.ok()) {
      objects.emplace_back(fed.message());
      break;
    }
  }
  return objects;
}

TEST(JsonStreamTest, ObjectsAreFoundHoweverTheStreamIsCut) {
  constexpr std::string_view kText =
      "{\"a\": 1}\r\n\n  {\n    \"b\": {\n        \"c\": [\n 1, {}\n ]\n    }\n}\n{}{\"d\":\"}\\\"{\"}\n{\"e";
  for (size_t piece = 1; piece <= kText.size(); ++piece) {
    EXPECT_THAT(Objects(kText, piece),
                ElementsAre("{\"a\": 1}", "{\n    \"b\": {\n        \"c\": [\n 1, {}\n ]\n    }\n}", "{}",
                            "{\"d\":\"}\\\"{\"}"))
        << piece;
  }
}

TEST(JsonStreamTest, WhatIsNoObjectIsAnErrorAtOnce) {
  for (const std::string_view text : {"x", "[1]", "\"{}\"", "}", "1 {}"}) {
    EXPECT_THAT(Objects(text, 1), ElementsAre(kNoObject)) << text;
  }
  EXPECT_THAT(Objects("{}x{}", 1), ElementsAre("{}", kNoObject));
}

TEST(JsonStreamTest, AnObjectThatNeverEndsIsBounded) {
  for (const size_t piece : {1, 7, 1000}) {
    EXPECT_THAT(Objects("{\"" + std::string(200, 'x'), piece),
                ElementsAre("a JSON object was sent that is longer than 100 bytes"));
    const std::string just_fits = "{\"" + std::string(96, 'x') + "\"}";
    EXPECT_THAT(Objects(just_fits, piece, just_fits.size()), ElementsAre(just_fits));
    EXPECT_THAT(Objects(std::string(kMaxJsonLevels + 1, '{'), piece, 1 << 20),
                ElementsAre(kNoObject));
    EXPECT_THAT(Objects(std::string(kMaxJsonLevels, '{'), piece, 1 << 20), IsEmpty());
  }
}

TEST(JsonStreamTest, SpaceCostsNothing) {
  EXPECT_THAT(Objects(std::string(1000, ' ') + "{}" + std::string(1000, '\n'), 10),
              ElementsAre("{}"));
}

TEST(JsonStreamTest, StopsWhereItsReaderDoes) {
  JsonStream stream(100);
  int taken = 0;
  const absl::Status fed = stream.Feed("{}{}{}", [&taken](std::string_view) {
    return ++taken == 2 ? absl::AbortedError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(fed, absl::AbortedError("enough"));
  EXPECT_EQ(taken, 2);
}

}  // namespace
}  // namespace postcopy
