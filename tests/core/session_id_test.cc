#include "core/session_id.h"

#include "gtest/gtest.h"

namespace postcopy {
namespace {

constexpr char kText[] = "00112233445566778899aabbccddeeff";

TEST(SessionIdTest, TextAndBytesAreTheSame) {
  const auto id = SessionId::Parse(kText);
  ASSERT_TRUE(id.has_value());
  EXPECT_EQ(id->bytes[0], std::byte{0});
  EXPECT_EQ(id->bytes[1], std::byte{0x11});
  EXPECT_EQ(id->bytes[15], std::byte{0xff});
  EXPECT_EQ(id->ToString(), kText);
}

TEST(SessionIdTest, OnlyThirtyTwoLowerCaseDigitsAreOne) {
  const std::string text = kText;
  for (const std::string& wrong :
       {std::string(), text.substr(1), text + "0", "0" + text, std::string("0x") + text.substr(2),
        std::string("AA") + text.substr(2), std::string("g0") + text.substr(2),
        std::string(" 0") + text.substr(2), text.substr(0, 31) + '\0'}) {
    EXPECT_FALSE(SessionId::Parse(wrong).has_value()) << wrong;
  }
}

TEST(SessionIdTest, OrderIsThatOfItsBytes) {
  EXPECT_LT(*SessionId::Parse("00" + std::string(30, 'f')), *SessionId::Parse("01" + std::string(30, '0')));
  EXPECT_EQ(SessionId{}, SessionId{});
}

}  // namespace
}  // namespace postcopy
