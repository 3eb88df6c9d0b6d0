#include "core/printable_text.h"

#include <string>
#include <string_view>

#include "gtest/gtest.h"

namespace postcopy {
namespace {

using namespace std::string_view_literals;

TEST(PrintableTextTest, PlainTextStaysAsItIs) {
  for (const std::string_view text : {""sv, "no guest RAM"sv, "Größe 4 €, \u65e5\u672c, \U0001f680"sv,
                                      "C:\\path \"quoted\""sv, "\u00a0\ud7ff\ue000\uffff"sv}) {
    EXPECT_EQ(PrintableText(text), text);
    EXPECT_TRUE(IsPrintable(text)) << text;
  }
}

TEST(PrintableTextTest, WhatATerminalWouldObeyIsWrittenOut) {
  const struct {
    std::string_view text, printable;
  } cases[] = {
      {"run\x1b[31m\nning"sv, "run\\x1b[31m\\x0aning"sv},
      {"a\0b\tc\rd\x7f"sv, "a\\x00b\\x09c\\x0dd\\x7f"sv},
      {"\x1b]0;PWNED\x07"sv, "\\x1b]0;PWNED\\x07"sv},
      {"csi \xc2\x9b" "31m"sv, "csi \\x9b31m"sv},  // C1, as valid UTF-8
      {"evil \u202etxt.exe\u2069"sv, "evil \\u202etxt.exe\\u2069"sv},
      {"two\u2028lines"sv, "two\\u2028lines"sv},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(PrintableText(each.text), each.printable);
    EXPECT_FALSE(IsPrintable(each.text)) << each.printable;
  }
}

TEST(PrintableTextTest, WhatIsNotUtf8IsWrittenOutByteByByte) {
  const struct {
    std::string_view text, printable;
  } cases[] = {
      {"\xff\xfe"sv, "\\xff\\xfe"sv},
      {"cut \xe2\x82"sv, "cut \\xe2\\x82"sv},          // the first two of three bytes
      {"\x80 alone"sv, "\\x80 alone"sv},               // a continuation of nothing
      {"\xc0\xaf"sv, "\\xc0\\xaf"sv},                  // a slash in more bytes than it needs
      {"\xed\xa0\x80"sv, "\\xed\\xa0\\x80"sv},         // half a surrogate pair
      {"\xf4\x90\x80\x80"sv, "\\xf4\\x90\\x80\\x80"sv},  // beyond the last code
      {"\xe2(\xa1"sv, "\\xe2(\\xa1"sv},
  };
  for (const auto& each : cases) {
    EXPECT_EQ(PrintableText(each.text), each.printable);
    EXPECT_FALSE(IsPrintable(each.text)) << each.printable;
  }
}

TEST(PrintableTextTest, WhatItReturnsIsPrintableForEveryPairOfBytes) {
  for (int first = 0; first < 256; ++first) {
    for (int second = 0; second < 256; ++second) {
      const std::string text = {static_cast<char>(first), static_cast<char>(second)};
      const std::string printable = PrintableText(text);
      EXPECT_TRUE(IsPrintable(printable)) << first << ' ' << second;
      EXPECT_EQ(PrintableText(printable), printable) << first << ' ' << second;
      EXPECT_EQ(IsPrintable(text), printable == text) << first << ' ' << second;
    }
  }
}

}  // namespace
}  // namespace postcopy
