// The peers' side: GrpcPeerFactory at one end, PeerService at the other.
#include <gmock/gmock.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <list>
#include <memory>
#include <thread>
#include <vector>

#include "control/control_server.h"
#include "control/device_state.h"
#include "control/grpc_peer.h"
#include "control/postcopy.grpc.pb.h"
#include "tests/control/fake_relocations.h"

namespace postcopy {
namespace {

using ::testing::Contains;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class PeerTest : public ::testing::Test {
 protected:
  PeerTest()
      : server_(ControlServer::Start({.addresses = {"127.0.0.1:0"}}, relocations_).value()),
        address_(server_->addresses()[0]),
        destination_(factory_.ConnectDestination(address_)),
        source_(factory_.ConnectSource(address_)) {}

  static absl::Status Load(DestinationPeer& peer, const std::string& session, bool run,
                           std::string_view device_state) {
    return peer.BeginLoad(session)->Finish(run, device_state);
  }
  // Sends the messages as they are; the peer's code and text.
  grpc::Status SendRaw(const std::vector<v1::LoadRequest>& pieces) {
    const auto stub =
        v1::Peer::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
    grpc::ClientContext context;
    v1::SessionResponse response;
    const auto writer = stub->Load(&context, &response);
    for (const auto& piece : pieces) {
      if (!writer->Write(piece)) break;
    }
    writer->WritesDone();
    return writer->Finish();
  }

  static v1::LoadRequest Stopped() {
    v1::LoadRequest head;
    head.set_session(kTestSession);
    return head;
  }
  static v1::LoadRequest Piece(uint64_t total, std::string bytes) {
    v1::LoadRequest piece;
    piece.set_total_bytes(total);
    piece.set_device_state(std::move(bytes));
    return piece;
  }

  FakeRelocations relocations_;
  std::unique_ptr<ControlServer> server_;
  std::string address_;
  GrpcPeerFactory factory_;
  std::unique_ptr<DestinationPeer> destination_;
  std::unique_ptr<SourcePeer> source_;
};

TEST_F(PeerTest, EveryCallReachesItsMethod) {
  const std::string session = kTestSession;
  relocations_.SetProgress(ProgressIn(SessionState::kRunning));
  EXPECT_TRUE(destination_->OpenIncoming(session).ok());
  EXPECT_TRUE(Load(*destination_, session, false, "state").ok());
  const Resumed resumed = destination_->HandOver(session).value();
  EXPECT_EQ(resumed.at_us, 1'700'000'000'000'001);
  EXPECT_EQ(resumed.since, std::chrono::microseconds(7));
  EXPECT_TRUE(destination_->Abort(session, "cut", std::chrono::seconds(10)).ok());
  EXPECT_TRUE(destination_->Hurry(session).ok());
  EXPECT_EQ(destination_->Figures(session)->state, SessionState::kRunning);
  EXPECT_EQ(destination_->Query(session).value(), RecordedOutcome::kHandedOver);
  EXPECT_EQ(source_->Query(session).value(), RecordedOutcome::kHandedOver);
  Progress figures = ProgressIn(SessionState::kCommitted);
  figures.faults = 4711;
  EXPECT_TRUE(source_->Arrived(session, figures).ok());
  EXPECT_EQ(relocations_.figures().faults, 4711u);
  EXPECT_THAT(relocations_.calls(),
              ElementsAre("open " + session, "stopped " + session, "load " + session + " paused",
                          "hand-over " + session, "abort " + session + " cut", "hurry " + session,
                          "figures " + session, "query " + session, "query " + session,
                          "arrived " + session));
}

TEST_F(PeerTest, OfferArrivesWhole) {
  Offer offer;
  offer.session = kTestSession;
  offer.control_address = "10.77.0.11:7700";
  offer.vm = "web1";
  offer.source_vm = "web1-a";
  offer.ram.push_back({{"pc.ram", 64 * kPageBytes}, {{PageIndex{3}, 2}}});
  offer.vcpus = 2;
  offer.devices = {"virtio-net-pci", "VGA"};
  offer.print = {{"CPU vendor", "GenuineIntel"}};
  ASSERT_TRUE(destination_->MakeOffer(offer).ok());
  EXPECT_EQ(relocations_.offer().ram[0].region, offer.ram[0].region);
  EXPECT_EQ(relocations_.offer().ram[0].data, offer.ram[0].data);
  EXPECT_EQ(relocations_.offer().devices, offer.devices);
  EXPECT_EQ(relocations_.offer().print, offer.print);
  EXPECT_EQ(relocations_.offer().source_vm, "web1-a");
}

TEST_F(PeerTest, CheckCarriesTheOfferAndAllFindings) {
  Offer offer;
  offer.session = kTestSession;
  offer.vm = offer.source_vm = "web1";
  offer.control_address = "10.0.0.7:7700";
  offer.print = {{"CPU vendor", "GenuineIntel"}, {"device disk0: addr", "04.0"}};
  const auto findings = destination_->Check(offer);  // without RAM: the source could not tell
  ASSERT_TRUE(findings.ok()) << findings.status();
  EXPECT_THAT(*findings, testing::ElementsAre("it runs already", "its CPU differs"));
  EXPECT_EQ(relocations_.offer().print, offer.print);
}

TEST_F(PeerTest, LargeOfferFitsTheMessageLimit) {
  Offer offer;
  offer.session = kTestSession;
  offer.control_address = "10.77.0.11:7700";
  offer.vm = offer.source_vm = "web1";
  constexpr uint64_t kExtents = 1 << 20;
  offer.ram.push_back({{"pc.ram", (uint64_t{1} << 34) * kPageBytes}, {}});
  for (uint64_t i = 0; i < kExtents; ++i) {
    offer.ram[0].data.push_back({PageIndex{(uint64_t{1} << 33) + 2 * i}, 1});
  }
  const absl::Status status = destination_->MakeOffer(offer);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(relocations_.offer().ram[0].data.size(), kExtents);
}

TEST_F(PeerTest, DeviceStateArrivesWholeAndInOrder) {
  std::string state(3 * kMaxStatePieceBytes + 12345, '\0');
  for (size_t i = 0; i < state.size(); ++i) state[i] = static_cast<char>(i * 31 + i / 4096);
  ASSERT_TRUE(Load(*destination_, kTestSession, true, state).ok());
  EXPECT_TRUE(relocations_.device_state() == state);
  EXPECT_THAT(relocations_.calls(), ElementsAre(std::string("stopped ") + kTestSession,
                                                std::string("load ") + kTestSession + " run"));
  ASSERT_TRUE(Load(*destination_, kTestSession, true, "").ok());
  EXPECT_EQ(relocations_.device_state(), "");
}

TEST_F(PeerTest, AWarmUpAsksNothingOfTheOtherSideAndNeverFails) {
  destination_->WarmUp();
  factory_.ConnectDestination("127.0.0.1:1")->WarmUp();
  EXPECT_THAT(relocations_.calls(), IsEmpty());
}

TEST_F(PeerTest, ThatTheGuestHasStoppedArrivesBeforeItsState) {
  const auto transfer = destination_->BeginLoad(kTestSession);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (relocations_.calls().empty()) ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  EXPECT_THAT(relocations_.calls(), ElementsAre(std::string("stopped ") + kTestSession));
  EXPECT_TRUE(transfer->Finish(true, "state").ok());
}

TEST_F(PeerTest, AStateThatIsGivenUpIsNeverLoaded) {
  destination_->BeginLoad(kTestSession).reset();
  ASSERT_TRUE(destination_->OpenIncoming(kTestSession).ok());
  EXPECT_THAT(relocations_.calls(), Not(Contains(HasSubstr("load"))));
}

TEST_F(PeerTest, AStateIsRefusedWhereItsSessionIs) {
  relocations_.Fail("stopped", absl::NotFoundError("no such session"));
  EXPECT_EQ(Load(*destination_, kTestSession, true, "state"),
            absl::NotFoundError("load to " + address_ + ": no such session"));
  EXPECT_THAT(relocations_.calls(), Not(Contains(HasSubstr("load"))));
}

TEST_F(PeerTest, CallsThatNeverSayWhatTheyAreAboutAreNotKept) {
  constexpr int kIdle = 60;
  const auto stub =
      v1::Peer::NewStub(grpc::CreateChannel(address_, grpc::InsecureChannelCredentials()));
  std::list<grpc::ClientContext> contexts(kIdle);
  std::atomic<int> ended = 0;
  std::vector<std::jthread> calls;
  for (grpc::ClientContext& context : contexts) {
    calls.emplace_back([&] {
      v1::SessionResponse response;
      EXPECT_EQ(stub->Load(&context, &response)->Finish().error_code(), grpc::StatusCode::CANCELLED);
      ++ended;
    });
  }
  // All but the youngest 32 end, although nobody has ended them at this side.
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (ended < kIdle - 32 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_EQ(ended, kIdle - 32);
  EXPECT_TRUE(Load(*destination_, kTestSession, true, "state").ok());
  for (grpc::ClientContext& context : contexts) context.TryCancel();
}

TEST_F(PeerTest, IncompleteDeviceStateIsNeverLoaded) {
  EXPECT_THAT(SendRaw({Stopped(), Piece(10, "12345")}).error_message(),
              HasSubstr("ended after 5 of 10 bytes"));
  EXPECT_THAT(SendRaw({}).error_message(), HasSubstr("nothing was sent"));
  EXPECT_THAT(SendRaw({Stopped()}).error_message(), HasSubstr("no device state was sent"));
  EXPECT_THAT(relocations_.calls(), Each(std::string("stopped ") + kTestSession));
}

TEST_F(PeerTest, DeviceStateBeyondItsLimitsIsRefused) {
  EXPECT_THAT(SendRaw({Stopped(), Piece(3, "1234")}).error_message(), HasSubstr("announced"));
  EXPECT_EQ(SendRaw({Stopped(), Piece(kMaxDeviceStateBytes + 1, "")}).error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  const std::string piece(kMaxStatePieceBytes + 1, 'x');
  EXPECT_THAT(SendRaw({Stopped(), Piece(piece.size(), piece)}).error_message(),
              HasSubstr("piece of"));
  EXPECT_THAT(relocations_.calls(), Each(std::string("stopped ") + kTestSession));
}

TEST_F(PeerTest, MalformedSessionIsRefusedBeforeAnythingActsOnIt) {
  for (const std::string session : {"", "../../etc", "00112233445566778899AABBCCDDEEFF"}) {
    for (const absl::Status& status :
         {destination_->OpenIncoming(session), Load(*destination_, session, true, "x"),
          destination_->HandOver(session).status(),
          destination_->Abort(session, "", std::chrono::seconds(10)), destination_->Hurry(session),
          destination_->Figures(session).status(), destination_->Query(session).status(),
          source_->Arrived(session, ProgressIn(SessionState::kCommitted))}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    }
  }
  EXPECT_THAT(relocations_.calls(), IsEmpty());
}

TEST_F(PeerTest, RefusalNamesOperationAddressAndCauseAndKeepsItsCode) {
  relocations_.Fail("offer", absl::FailedPreconditionError("ram pc.ram: 1 GiB here, 2 GiB there"));
  Offer offer;
  offer.session = kTestSession;
  offer.control_address = "10.77.0.11:7700";
  offer.vm = offer.source_vm = "web1";
  offer.ram.push_back({{"pc.ram", kPageBytes}, {}});
  EXPECT_EQ(destination_->MakeOffer(offer),
            absl::FailedPreconditionError("offer to " + address_ +
                                          ": ram pc.ram: 1 GiB here, 2 GiB there"));
  relocations_.Fail("hand-over", absl::DataLossError("it has ended"));
  EXPECT_EQ(destination_->HandOver(kTestSession).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(PeerTest, UnreachablePeerFailsFastWithTheCause) {
  const auto peer = factory_.ConnectDestination("127.0.0.1:1");
  const auto before = std::chrono::steady_clock::now();
  EXPECT_EQ(peer->OpenIncoming(kTestSession),
            absl::UnavailableError("open incoming to 127.0.0.1:1: connection refused"));
  EXPECT_EQ(Load(*peer, kTestSession, true, std::string(4 << 20, 'x')),
            absl::UnavailableError("load to 127.0.0.1:1: connection refused"));
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
}

TEST_F(PeerTest, PeerThatComesBackIsFoundAgain) {
  ASSERT_TRUE(destination_->OpenIncoming(kTestSession).ok());
  server_.reset();
  EXPECT_EQ(destination_->OpenIncoming(kTestSession).code(), absl::StatusCode::kUnavailable);
  server_ = ControlServer::Start({.addresses = {address_}}, relocations_).value();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!destination_->OpenIncoming(kTestSession).ok()) {
    ASSERT_LT(std::chrono::steady_clock::now(), deadline);
  }
}

}  // namespace
}  // namespace postcopy
