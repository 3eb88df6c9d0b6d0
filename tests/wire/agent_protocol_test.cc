#include "wire/agent_protocol.h"

#include <functional>

#include "gmock/gmock.h"

namespace postcopy::wire {
namespace {

using ::testing::HasSubstr;

const SessionId kSession{{std::byte{1}, std::byte{2}, std::byte{3}}};

RegisterMessage FullRegister() {
  RegisterMessage message;
  message.snapshot = 7;
  message.vm_name = "web";
  message.qmp_path = "/run/web.qmp";
  message.problem = "one block is private";
  message.armed_session = kSession;
  message.blocks = {{0x7f0000000000, 1 << 28, 4096, BlockKind::kSharedFile, true, "ram", "/dev/shm/r"},
                    {0x7f1000000000, 1 << 24, 0, BlockKind::kAnonymous, false, "", ""}};
  return message;
}

RegisterMessage FencedRegister() {
  RegisterMessage message = FullRegister();
  message.armed_session.reset();
  message.blocks[0].armed = false;
  message.fenced_session = kSession;
  message.blocks[0].fenced = true;
  return message;
}

RegisterMessage OldRegister() {
  RegisterMessage message = FullRegister();
  message.version = kOldestAgentProtocolVersion;
  return message;
}

std::vector<AgentMessage> EveryMessage() {
  RegisteredMessage accepted;
  accepted.snapshot = 7;
  accepted.accepted = true;
  accepted.has_device = true;
  RegisteredMessage refused;
  refused.version = 9;
  refused.refusal = "name taken";
  return {FullRegister(),
          FencedRegister(),
          OldRegister(),
          accepted,
          refused,
          ArmMessage{kSession, 7, {1, 0}},
          ArmedMessage{kSession},
          ArmFailedMessage{kSession, "busy"},
          ReleaseMessage{kSession},
          ReleasedMessage{kSession},
          ErrorMessage{"bye"},
          FenceMessage{kSession, 7, {1, 0}},
          FencedMessage{kSession},
          FenceFailedMessage{kSession, "busy"},
          UnfenceMessage{kSession},
          UnfencedMessage{kSession},
          UnfenceFailedMessage{kSession, "busy"}};
}

Frame Split(const std::vector<std::byte>& bytes) {
  FrameReader reader(kMaxAgentBodyBytes);
  reader.Feed(bytes);
  Frame frame;
  EXPECT_EQ(reader.Next(frame), FrameReader::Outcome::kFrame);
  return frame;
}

std::string WhyNot(const Frame& frame) {
  const auto decoded = DecodeAgentFrame(frame);
  return decoded.ok() ? "decoded" : decoded.error().message;
}

TEST(AgentProtocolTest, EveryMessageSurvivesTheWire) {
  for (const AgentMessage& message : EveryMessage()) {
    ASSERT_TRUE(Validate(message).ok()) << Validate(message).error().message;
    const Frame frame = Split(Encode(message));
    EXPECT_EQ(frame.header.aux, CountDescriptors(message));
    auto decoded = DecodeAgentFrame(frame);
    ASSERT_TRUE(decoded.ok()) << decoded.error().message;
    EXPECT_TRUE(*decoded == message) << "message " << message.index();
  }
}

TEST(AgentProtocolTest, ABodyCutAnywhereIsRefused) {
  for (const AgentMessage& message : EveryMessage()) {
    const Frame whole = Split(Encode(message));
    for (size_t length = 0; length < whole.body.size(); ++length) {
      Frame cut = whole;
      cut.body.resize(length);
      EXPECT_FALSE(DecodeAgentFrame(cut).ok()) << "message " << message.index() << " at " << length;
    }
  }
}

TEST(AgentProtocolTest, ABodyThatIsTooLongIsRefused) {
  for (const AgentMessage& message : EveryMessage()) {
    Frame frame = Split(Encode(message));
    frame.body.push_back(std::byte{0});
    EXPECT_FALSE(DecodeAgentFrame(frame).ok()) << "message " << message.index();
  }
}

TEST(AgentProtocolTest, NoFlippedByteMakesTheDecoderMisbehave) {
  for (const AgentMessage& message : EveryMessage()) {
    const Frame whole = Split(Encode(message));
    for (size_t i = 0; i < whole.body.size(); ++i) {
      for (const uint8_t value : {0x00, 0x01, 0x7f, 0xff}) {
        Frame frame = whole;
        frame.body[i] = std::byte{value};
        auto decoded = DecodeAgentFrame(frame);
        if (!decoded.ok()) continue;
        EXPECT_TRUE(Validate(*decoded).ok());
        // Text that is not printable is replaced; what has come of it stays as it is.
        const Frame again = Split(Encode(*decoded));
        const bool replaced = again.body != frame.body;
        EXPECT_TRUE(!replaced || value == 0x01 || value >= 0x7f) << "two encodings of one message";
        EXPECT_TRUE(*DecodeAgentFrame(again) == *decoded);
      }
    }
  }
}

TEST(AgentProtocolTest, EveryTypeOfGarbageIsRefused) {
  for (int type = 0; type < 256; ++type) {
    for (const uint8_t filler : {0x00, 0x41, 0xff}) {
      Frame frame;
      frame.header.type = static_cast<uint8_t>(type);
      frame.body.assign(100, std::byte{filler});
      EXPECT_FALSE(DecodeAgentFrame(frame).ok()) << "type " << type;
    }
  }
}

TEST(AgentProtocolTest, AnEncodingOrAWrongNumberOfDescriptorsIsRefused) {
  for (const AgentMessage& message : EveryMessage()) {
    Frame encoded = Split(Encode(message));
    encoded.header.encoding = 1;
    EXPECT_THAT(WhyNot(encoded), HasSubstr("encoding"));
    Frame counted = Split(Encode(message));
    counted.header.aux = static_cast<uint16_t>(counted.header.aux + 2);
    EXPECT_THAT(WhyNot(counted), HasSubstr("descriptors"));
  }
}

TEST(AgentProtocolTest, AnotherVersionIsToldApartFromAViolation) {
  Frame frame = Split(Encode(FullRegister()));
  frame.body[0] = std::byte{kAgentProtocolVersion + 1};
  frame.body.resize(2);  // whatever follows
  const auto decoded = DecodeAgentFrame(frame);
  ASSERT_FALSE(decoded.ok());
  EXPECT_EQ(decoded.error().code, ErrorCode::kUnsupported);
}

TEST(AgentProtocolTest, TheLargestRegisterFitsABody) {
  RegisterMessage message = FullRegister();
  message.vm_name.assign(kMaxVmNameBytes, 'v');
  message.qmp_path.assign(kMaxQmpPathBytes, '/');
  message.problem.assign(kMaxAgentTextBytes, 'p');
  RegisterBlock block = message.blocks[0];
  block.name.assign(kMaxRegionNameBytes, 'n');
  block.path.assign(kMaxBlockPathBytes, '/');
  message.blocks.assign(kMaxAgentBlocks, block);
  const auto bytes = Encode(message);
  EXPECT_LE(bytes.size(), kMaxAgentBodyBytes + kFrameHeaderBytes);
  EXPECT_EQ(CountDescriptors(message), kMaxAgentDescriptors);
  auto decoded = DecodeAgentFrame(Split(bytes));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_TRUE(*decoded == AgentMessage(message));
}

struct Refused {
  const char* why;
  std::function<void(RegisterMessage&)> change;
};

TEST(AgentProtocolTest, WhatARegisterMayNotSay) {
  const Refused refused[] = {
      {"VM name is empty", [](auto& m) { m.vm_name.clear(); }},
      {"VM name has", [](auto& m) { m.vm_name.assign(kMaxVmNameBytes + 1, 'v'); }},
      {"printable ASCII", [](auto& m) { m.vm_name = "a/b"; }},
      {"printable ASCII", [](auto& m) { m.vm_name = "a\nb"; }},
      {"printable ASCII", [](auto& m) { m.vm_name = ".."; }},
      {"VM name begins", [](auto& m) { m.vm_name = "-rf"; }},
      {"VM name begins", [](auto& m) { m.vm_name = "--help"; }},
      {"VM name begins", [](auto& m) { m.vm_name = " web1"; }},
      {"VM name begins", [](auto& m) { m.vm_name = "web1 "; }},
      {"QMP path is not printable", [](auto& m) { m.qmp_path = "/run/\x1b[2Jq"; }},
      {"QMP path is not printable", [](auto& m) { m.qmp_path = "/run/\xff"; }},
      {"QMP path is not absolute", [](auto& m) { m.qmp_path = "q"; }},
      {"QMP path has", [](auto& m) { m.qmp_path.assign(kMaxQmpPathBytes + 1, '/'); }},
      {"NUL", [](auto& m) { m.problem = std::string("a\0b", 3); }},
      {"problem has", [](auto& m) { m.problem.assign(kMaxAgentTextBytes + 1, 'p'); }},
      {"65 blocks", [](auto& m) { m.blocks.resize(65, m.blocks[0]); }},
      {"neither", [](auto& m) { m.blocks.clear(); m.problem.clear(); }},
      {"multiple of the page size", [](auto& m) { m.blocks[0].address += 1; }},
      {"multiple of the page size", [](auto& m) { m.blocks[0].size_bytes += 512; }},
      {"multiple of the page size", [](auto& m) { m.blocks[0].file_offset += 1; }},
      {"block of 0 bytes", [](auto& m) { m.blocks[0].size_bytes = 0; }},
      {"bytes", [](auto& m) { m.blocks[0].size_bytes = kMaxRegionBytes + 4096; }},
      {"beyond the end", [](auto& m) { m.blocks[0].address = UINT64_MAX - 4095; }},
      {"beyond the end", [](auto& m) { m.blocks[0].file_offset = uint64_t{1} << 63; }},
      {"anonymous block with a file", [](auto& m) { m.blocks[1].path = "/f"; }},
      {"unknown kind", [](auto& m) { m.blocks[0].kind = static_cast<BlockKind>(3); }},
      {"armed block without", [](auto& m) { m.armed_session.reset(); }},
      {"armed without", [](auto& m) { m.blocks[0].armed = false; }},
      {"session id is zero", [](auto& m) { m.armed_session = SessionId{}; }},
      {"fenced block without", [](auto& m) { m.blocks[0].fenced = true; }},
      {"both armed and fenced", [](auto& m) { m.fenced_session = kSession; }},
      {"protocol version", [](auto& m) { m.version = kAgentProtocolVersion + 1; }},
      {"protocol version", [](auto& m) { m.version = kOldestAgentProtocolVersion - 1; }},
  };
  for (const Refused& rule : refused) {
    RegisterMessage message = FullRegister();
    rule.change(message);
    const auto valid = Validate(message);
    ASSERT_FALSE(valid.ok()) << rule.why;
    EXPECT_THAT(valid.error().message, HasSubstr(rule.why));
  }
}

TEST(AgentProtocolTest, WhatAFencedRegisterMayNotSay) {
  const Refused refused[] = {
      {"fenced without", [](auto& m) { m.blocks[0].fenced = false; }},
      {"knows no fence", [](auto& m) { m.version = kFirstVersionWithFence - 1; }},
      {"armed block without", [](auto& m) { m.blocks[1].armed = true; }},
      {"session id is zero", [](auto& m) { m.fenced_session = SessionId{}; }},
  };
  for (const Refused& rule : refused) {
    RegisterMessage message = FencedRegister();
    rule.change(message);
    const auto valid = Validate(message);
    ASSERT_FALSE(valid.ok()) << rule.why;
    EXPECT_THAT(valid.error().message, HasSubstr(rule.why));
  }
}

TEST(AgentProtocolTest, WhatOtherMessagesMayNotSay) {
  EXPECT_FALSE(Validate(ArmMessage{kSession, 1, {}}).ok());
  EXPECT_FALSE(Validate(ArmMessage{kSession, 1, {3, 3}}).ok());
  EXPECT_FALSE(Validate(ArmMessage{kSession, 1, std::vector<uint16_t>(65)}).ok());
  EXPECT_FALSE(Validate(ArmMessage{SessionId{}, 1, {0}}).ok());
  EXPECT_FALSE(Validate(ArmFailedMessage{kSession, ""}).ok());
  EXPECT_FALSE(Validate(FenceMessage{kSession, 1, {}}).ok());
  EXPECT_FALSE(Validate(FenceMessage{kSession, 1, {3, 3}}).ok());
  EXPECT_FALSE(Validate(FenceMessage{SessionId{}, 1, {0}}).ok());
  EXPECT_FALSE(Validate(FenceFailedMessage{kSession, ""}).ok());
  EXPECT_FALSE(Validate(UnfenceFailedMessage{kSession, ""}).ok());
  EXPECT_FALSE(Validate(UnfencedMessage{}).ok());
  EXPECT_FALSE(Validate(ErrorMessage{std::string(1024, 'e')}).ok());
  RegisteredMessage registered;
  EXPECT_FALSE(Validate(registered).ok()) << "a refusal without a reason";
  registered.accepted = true;
  registered.version = kAgentProtocolVersion + 1;
  EXPECT_FALSE(Validate(registered).ok()) << "accepted in another version";
}

TEST(AgentProtocolTest, WhatIsShownIsMadePrintable) {
  RegisterMessage message = FullRegister();
  message.problem = "ok\n2026-11-28 info agent: vm registered\x1b[2J\xff";
  message.blocks[0].path = "/dev/shm/\x1b]0;r\x07";
  message.blocks[0].name = "\xc3(";
  const auto decoded = DecodeAgentFrame(Split(Encode(message)));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  const auto& shown = std::get<RegisterMessage>(*decoded);
  EXPECT_EQ(shown.problem, "ok\\x0a2026-11-28 info agent: vm registered\\x1b[2J\\xff");
  EXPECT_EQ(shown.blocks[0].path, "/dev/shm/\\x1b]0;r\\x07");
  EXPECT_EQ(shown.blocks[0].name, "\\xc3(");
  for (const AgentMessage& told :
       {AgentMessage(ArmFailedMessage{kSession, "a\nb"}), AgentMessage(ErrorMessage{"a\nb"}),
        AgentMessage(RegisteredMessage{.snapshot = 1, .refusal = "a\nb"})}) {
    const auto text = DecodeAgentFrame(Split(Encode(told)));
    ASSERT_TRUE(text.ok()) << text.error().message;
    const std::string printable = std::visit(
        [](const auto& each) -> std::string {
          if constexpr (requires { each.text; }) return each.text;
          if constexpr (requires { each.refusal; }) return each.refusal;
          return "";
        },
        *text);
    EXPECT_EQ(printable, "a\\x0ab");
  }
}

TEST(AgentProtocolTest, PrintableTextStaysWithinItsLimit) {
  RegisterMessage message = FullRegister();
  message.problem.assign(kMaxAgentTextBytes, '\x1b');
  const auto decoded = DecodeAgentFrame(Split(Encode(message)));
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_EQ(std::get<RegisterMessage>(*decoded).problem.size(), kMaxAgentTextBytes);
}

TEST(AgentProtocolTest, CutTextKeepsCharactersWhole) {
  EXPECT_EQ(CutText("abc", 3), "abc");
  EXPECT_EQ(CutText("abcd", 3), "abc");
  EXPECT_EQ(CutText("ab\xc3\xa9", 3), "ab");
}

}  // namespace
}  // namespace postcopy::wire
