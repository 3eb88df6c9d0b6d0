#include "control/convert.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace postcopy {
namespace {

constexpr const char* kSession = "00112233445566778899aabbccddeeff";

Offer SomeOffer() {
  Offer offer;
  offer.session = kSession;
  offer.vm = "web1";
  offer.source_vm = "web1-a";
  offer.ram.push_back({{"pc.ram", 64 * kPageBytes}, {{PageIndex{0}, 2}, {PageIndex{60}, 4}}});
  offer.ram.push_back({{"vga.vram", 4 * kPageBytes}, {}});
  offer.machine_type = "pc-i440fx-7.2";
  offer.vmm_version = "7.2.9";
  offer.vcpus = 2;
  offer.devices = {"virtio-net-pci"};
  offer.data_addresses = {"10.77.0.11:7701"};
  offer.control_address = "10.77.0.11:7700";
  return offer;
}

void ExpectRefused(const v1::OfferRequest& message, std::string_view words) {
  const auto offer = FromProto(message);
  ASSERT_FALSE(offer.ok()) << words;
  EXPECT_EQ(offer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string_view(offer.status().message().data(), offer.status().message().size())
                .find(words),
            std::string_view::npos)
      << offer.status();
}

TEST(ConvertTest, EveryStateComesBack) {
  for (int i = 0; i < kSessionStates; ++i) {
    const auto state = static_cast<SessionState>(i);
    ASSERT_NE(ToProto(state), v1::STATE_UNSPECIFIED) << i;
    EXPECT_EQ(FromProto(ToProto(state)).value(), state);
  }
  EXPECT_FALSE(FromProto(v1::STATE_UNSPECIFIED).ok());
  EXPECT_FALSE(FromProto(static_cast<v1::State>(99)).ok());
}

TEST(ConvertTest, WhatBecomesOfALostSourceIsOneOfTwo) {
  EXPECT_EQ(FromProto(v1::SOURCE_LOST_ACTION_POISON).value(), SourceLostAction::kPoison);
  EXPECT_EQ(FromProto(v1::SOURCE_LOST_ACTION_KILL).value(), SourceLostAction::kKill);
  EXPECT_FALSE(FromProto(v1::SOURCE_LOST_ACTION_UNSPECIFIED).ok());
  EXPECT_FALSE(FromProto(static_cast<v1::SourceLostAction>(99)).ok());
}

TEST(ConvertTest, ExtentsOfAnOfferAscendAndAreDisjoint) {
  const struct {
    std::vector<uint64_t> extents;
    const char* words;
  } cases[] = {
      {{0, 64, 0, 64}, "begins before the end of the last, 64"},
      {{8, 2, 4, 2}, "begins before the end of the last, 10"},
      {{0, 3, 2, 2}, "begins before the end of the last, 3"},
      {{0, 2, 2, 0}, "is empty"},
  };
  for (const auto& each : cases) {
    v1::OfferRequest message = ToProto(SomeOffer());
    auto& extents = *message.mutable_ram(0)->mutable_data_extents();
    extents.Assign(each.extents.begin(), each.extents.end());
    ExpectRefused(message, each.words);
  }
  v1::OfferRequest message = ToProto(SomeOffer());
  message.mutable_ram(0)->mutable_data_extents()->Clear();
  for (uint64_t page = 0; page < 64; page += 2) {  // adjacent ones are fine
    message.mutable_ram(0)->add_data_extents(page);
    message.mutable_ram(0)->add_data_extents(2);
  }
  EXPECT_TRUE(FromProto(message).ok());
}

TEST(ConvertTest, WhatAnOfferNamesIsPrintableAndBounded) {
  const struct {
    const char* words;
    std::function<void(v1::OfferRequest&)> change;
  } cases[] = {
      {"vm: not printable", [](auto& m) { m.set_vm("web1\n2026 [31m\" has registered"); }},
      {"source_vm: not printable", [](auto& m) { m.set_source_vm("\x1b[31m"); }},
      {"ram: not printable", [](auto& m) { m.mutable_ram(0)->set_name("pc\x07"); }},
      {"machine_type: not printable", [](auto& m) { m.set_machine_type("pc\x1b"); }},
      {"vmm_version: not printable", [](auto& m) { m.set_vmm_version("\r"); }},
      {"device: not printable", [](auto& m) { m.add_devices("a\tb"); }},
      {"data address host\\x0a:7701: the host is neither",
       [](auto& m) { m.add_data_addresses("host\n:7701"); }},
      {"control address \\x7f: the host is neither",
       [](auto& m) { m.set_control_address("\x7f"); }},
      {"device: at most 1024 bytes", [](auto& m) { m.add_devices(std::string(1025, 'd')); }},
      {"machine_type: at most", [](auto& m) { m.set_machine_type(std::string(256, 'm')); }},
      {"longer than 253 bytes", [](auto& m) { m.add_data_addresses(std::string(256, 'a')); }},
      {"data address 0.0.0.0:7701: it means every address",
       [](auto& m) { m.add_data_addresses("0.0.0.0:7701"); }},
      {"control address 10.0.0.7: it names no port",
       [](auto& m) { m.set_control_address("10.0.0.7"); }},
  };
  for (const auto& each : cases) {
    v1::OfferRequest message = ToProto(SomeOffer());
    each.change(message);
    ExpectRefused(message, each.words);
  }
}

TEST(ConvertTest, FiguresOfAPeerAreNumbersAndItsWordsPrintable) {
  Progress progress;
  progress.error = "lost\x1b[2J\n";
  progress.peer = "host\x07";
  const auto read = FromProto(ToProto(progress));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->error, "lost\\x1b[2J\\x0a");
  EXPECT_EQ(read->peer, "host\\x07");
  progress.downtime_ms = std::numeric_limits<double>::quiet_NaN();
  EXPECT_FALSE(FromProto(ToProto(progress)).ok());
}

TEST(ConvertTest, EveryRecordedOutcomeComesBack) {
  for (const RecordedOutcome outcome :
       {RecordedOutcome::kNone, RecordedOutcome::kPrepared, RecordedOutcome::kNever,
        RecordedOutcome::kHandedOver, RecordedOutcome::kOwner, RecordedOutcome::kCommitted,
        RecordedOutcome::kUnreadable}) {
    EXPECT_EQ(RecordFromWord(RecordWord(outcome)).value(), outcome);
  }
  EXPECT_FALSE(RecordFromWord("perhaps").ok());
  EXPECT_FALSE(RecordFromWord("").ok());
}

// A field that is added to one side and forgotten at the other shows here.
TEST(ConvertTest, EveryFieldOfProgressComesBack) {
  v1::Progress message;
  const auto& fields = *v1::Progress::descriptor();
  const auto& reflection = *message.GetReflection();
  for (int i = 0; i < fields.field_count(); ++i) {
    const auto* field = fields.field(i);
    switch (field->cpp_type()) {  // not our enum
      case google::protobuf::FieldDescriptor::CPPTYPE_UINT64:
        reflection.SetUInt64(&message, field, 1000u + static_cast<unsigned>(i));
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(&message, field, 1000 + i);
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_DOUBLE:
        reflection.SetDouble(&message, field, 0.5 + i);
        break;
      case google::protobuf::FieldDescriptor::CPPTYPE_STRING:
        reflection.SetString(&message, field, field->name());
        break;
      default: break;
    }
  }
  message.set_state(v1::STATE_RUNNING);
  message.set_role("destination");
  const auto progress = FromProto(message);
  ASSERT_TRUE(progress.ok()) << progress.status();
  EXPECT_EQ(ToProto(*progress).DebugString(), message.DebugString());
}

TEST(ConvertTest, OfferComesBack) {
  const Offer offer = SomeOffer();
  const auto back = FromProto(ToProto(offer));
  ASSERT_TRUE(back.ok()) << back.status();
  ASSERT_EQ(back->ram.size(), 2u);
  EXPECT_EQ(back->ram[0].region, offer.ram[0].region);
  EXPECT_EQ(back->ram[0].data, offer.ram[0].data);
  EXPECT_EQ(back->ram[1].data, offer.ram[1].data);
  EXPECT_EQ(ToProto(*back).DebugString(), ToProto(offer).DebugString());
}

TEST(ConvertTest, OfferWithExtentBeyondItsBlockIsRefused) {
  v1::OfferRequest message = ToProto(SomeOffer());
  message.mutable_ram(0)->set_data_extents(3, 5);  // 60 + 5 > 64
  ExpectRefused(message, "beyond");
  message.mutable_ram(0)->set_data_extents(3, UINT64_MAX);
  ExpectRefused(message, "beyond");
  message.mutable_ram(0)->add_data_extents(1);
  ExpectRefused(message, "without its count");
}

TEST(ConvertTest, OfferWithUnusableNamesIsRefused) {
  v1::OfferRequest message = ToProto(SomeOffer());
  message.set_session("../../etc/passwd");
  ExpectRefused(message, "session");
  message = ToProto(SomeOffer());
  message.set_vm(std::string(256, 'x'));
  ExpectRefused(message, "vm");
  message = ToProto(SomeOffer());
  message.mutable_ram(1)->set_name("pc.ram");
  ExpectRefused(message, "pc.ram");
  message = ToProto(SomeOffer());
  message.clear_ram();
  ExpectRefused(message, "");
}

TEST(ConvertTest, MachinePropertiesComeBackOrAreRefused) {
  Offer offer = SomeOffer();
  offer.print = {{"CPU vendor", "GenuineIntel"}, {"device disk0: addr", ""}};
  const auto back = FromProto(ToProto(offer));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->print, offer.print);

  v1::OfferRequest message = ToProto(offer);
  message.mutable_print(1)->set_name("CPU vendor");
  ExpectRefused(message, "not in order");
  message = ToProto(offer);
  message.mutable_print(0)->set_value(std::string(kMaxPrintTextBytes + 1, 'x'));
  ExpectRefused(message, "more than");
  message = ToProto(SomeOffer());
  for (size_t i = 0; i <= kMaxPrintProperties; ++i) message.add_print();
  ExpectRefused(message, "machine properties");
}

TEST(ConvertTest, OnlyACheckMayComeWithoutRam) {
  v1::OfferRequest message = ToProto(SomeOffer());
  message.clear_ram();
  EXPECT_TRUE(CheckedOfferFromProto(message).ok());
  message.set_session("");
  EXPECT_FALSE(CheckedOfferFromProto(message).ok());
}

TEST(ConvertTest, OfferedExtentsAreCutNotRefused) {
  Offer offer = SomeOffer();
  offer.ram[0].region.size_bytes = uint64_t{4} * kMaxOfferedExtents * kPageBytes;
  offer.ram[0].data.clear();
  for (uint64_t i = 0; i < kMaxOfferedExtents + 10; ++i) {
    offer.ram[0].data.push_back({PageIndex{2 * i}, 1});
  }
  const v1::OfferRequest message = ToProto(offer);
  EXPECT_EQ(message.ram(0).data_extents_size(), 2 * kMaxOfferedExtents);
  EXPECT_TRUE(FromProto(message).ok());
}

}  // namespace
}  // namespace postcopy
