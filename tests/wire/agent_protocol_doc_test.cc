// docs/agent-protocol.md and the codec say the same: the document's hex examples are decoded and
// encoded, and its table of limits is compared with the constants.
#include <map>

#include "gmock/gmock.h"
#include "tests/wire/hex_examples.h"
#include "wire/agent_protocol.h"
#include "wire/keepsake_header.h"

namespace postcopy::wire {
namespace {

constexpr char kDocument[] = POSTCOPY_DOCS "/agent-protocol.md";

std::map<std::string, AgentMessage> Expected() {
  SessionId session;
  for (size_t i = 0; i < 16; ++i) session.bytes[i] = static_cast<std::byte>(0x10 + i);
  RegisterMessage plain;
  plain.snapshot = 1;
  plain.vm_name = "web";
  plain.qmp_path = "/run/q";
  plain.blocks = {
      {0x7f0000000000, 0x10000000, 0, BlockKind::kSharedFile, false, "", "/dev/shm/r"}};
  RegisterMessage armed;
  armed.snapshot = 3;
  armed.vm_name = "web";
  armed.armed_session = session;
  armed.blocks = {
      {0x7f0000000000, 0x10000000, 0, BlockKind::kSharedFile, true, "ram", "/dev/shm/r"},
      {0x7f0020000000, 0x1000000, 0, BlockKind::kAnonymous, false, "", ""}};
  RegisterMessage problem;
  problem.snapshot = 1;
  problem.vm_name = "web";
  problem.problem = "RAM is private";
  RegisterMessage fenced;
  fenced.snapshot = 2;
  fenced.vm_name = "web";
  fenced.fenced_session = session;
  fenced.blocks = {
      {0x7f0000000000, 0x10000000, 0, BlockKind::kSharedFile, false, "", "/dev/shm/r", true}};
  RegisterMessage older = plain;
  older.version = 2;
  older.qmp_path = "";
  return {{"register", plain},
          {"register-fenced", fenced},
          {"register-version-2", older},
          {"register-armed", armed},
          {"register-problem", problem},
          {"registered", RegisteredMessage{3, 1, true, true, ""}},
          {"registered-refused", RegisteredMessage{3, 1, false, false, "name taken"}},
          {"arm", ArmMessage{session, 3, {0, 1}}},
          {"armed", ArmedMessage{session}},
          {"arm-failed", ArmFailedMessage{session, "busy"}},
          {"release", ReleaseMessage{session}},
          {"released", ReleasedMessage{session}},
          {"fence", FenceMessage{session, 2, {0}}},
          {"fenced", FencedMessage{session}},
          {"fence-failed", FenceFailedMessage{session, "busy"}},
          {"unfence", UnfenceMessage{session}},
          {"unfenced", UnfencedMessage{session}},
          {"unfence-failed", UnfenceFailedMessage{session, "busy"}},
          {"error", ErrorMessage{"bye"}}};
}

TEST(AgentProtocolDocTest, EveryExampleDecodesToWhatItShows) {
  const auto examples = ReadHexExamples(kDocument);
  const auto expected = Expected();
  ASSERT_EQ(examples.size(), expected.size() + 1);  // and the keepsake
  for (const auto& [name, message] : expected) {
    ASSERT_TRUE(examples.contains(name)) << name;
    FrameReader reader(kMaxAgentBodyBytes);
    reader.Feed(examples.at(name));
    Frame frame;
    ASSERT_EQ(reader.Next(frame), FrameReader::Outcome::kFrame) << name;
    auto decoded = DecodeAgentFrame(frame);
    ASSERT_TRUE(decoded.ok()) << name << ": " << decoded.error().message;
    EXPECT_TRUE(*decoded == message) << name;
  }
}

TEST(AgentProtocolDocTest, EveryExampleIsWhatTheEncoderMakes) {
  const auto examples = ReadHexExamples(kDocument);
  for (const auto& [name, message] : Expected()) {
    EXPECT_EQ(Encode(message), examples.at(name)) << name;
  }
}

TEST(AgentProtocolDocTest, TheKeepsakeIsWhatItsCodecMakesAndReads) {
  SessionId session;
  for (size_t i = 0; i < session.bytes.size(); ++i)
    session.bytes[i] = static_cast<std::byte>(0x10 + i);
  const KeepsakeHeader header{session, {{{"ram", 0x10000000}, 0x7f0000000000}}, {"10.0.0.7:7701"},
                               "10.0.0.7:7700"};
  const auto example = ReadHexExamples(kDocument).at("keepsake");
  EXPECT_EQ(EncodeKeepsakeHeader(header), example);
  const auto decoded = DecodeKeepsakeHeader(example);
  ASSERT_TRUE(decoded.ok()) << decoded.error().message;
  EXPECT_TRUE(*decoded == header);
}

TEST(AgentProtocolDocTest, TheTableOfLimitsIsTheCodes) {
  const std::string document = ReadDocument(kDocument);
  const std::pair<const char*, uint64_t> limits[] = {
      {"kMaxAgentBlocks", kMaxAgentBlocks},
      {"kMaxVmNameBytes", kMaxVmNameBytes},
      {"kMaxQmpPathBytes", kMaxQmpPathBytes},
      {"kMaxBlockPathBytes", kMaxBlockPathBytes},
      {"kMaxRegionNameBytes", kMaxRegionNameBytes},
      {"kMaxAgentTextBytes", kMaxAgentTextBytes},
      {"kMaxAgentBodyBytes", kMaxAgentBodyBytes},
      {"kMaxAgentDescriptors", kMaxAgentDescriptors},
      {"kKeepsakeHeaderBytes", kKeepsakeHeaderBytes},
      {"kMaxKeepsakeAddresses", kMaxKeepsakeAddresses},
      {"kMaxKeepsakeAddressBytes", kMaxKeepsakeAddressBytes},
  };
  for (const auto& [name, value] : limits) {
    const std::string row = "| `" + std::string(name) + "` | " + std::to_string(value) + " |";
    EXPECT_NE(document.find(row), std::string::npos) << row;
  }
  EXPECT_NE(document.find("Version " + std::to_string(kAgentProtocolVersion) + "."),
            std::string::npos);
}

}  // namespace
}  // namespace postcopy::wire
