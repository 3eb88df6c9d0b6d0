#include "control/control_server.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <future>
#include <thread>

#include "absl/synchronization/notification.h"
#include "control/relocation_client.h"
#include "tests/control/fake_relocations.h"

namespace postcopy {
namespace {

using std::chrono::steady_clock;

std::unique_ptr<ControlServer> StartOnLoopback(Relocations& relocations) {
  auto server = ControlServer::Start({.addresses = {"127.0.0.1:0"}}, relocations);
  return server.ok() ? *std::move(server) : nullptr;
}

// The answer of the standard health service for `service`, as bytes of its message.
std::string Health(const std::string& address, const std::string& service) {
  const std::string request =
      service.empty() ? "" : "\x0a" + std::string(1, static_cast<char>(service.size())) + service;
  grpc::GenericStub stub(grpc::CreateChannel(address, grpc::InsecureChannelCredentials()));
  grpc::Slice slice(request);
  const grpc::ByteBuffer sent(&slice, 1);
  grpc::ByteBuffer received;
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
  std::promise<grpc::Status> status;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &sent, &received,
                 [&status](grpc::Status result) { status.set_value(std::move(result)); });
  if (const grpc::Status result = status.get_future().get(); !result.ok()) {
    return result.error_message();
  }
  grpc::Slice answer;
  if (!received.DumpToSingleSlice(&answer).ok()) return "no message";
  return {reinterpret_cast<const char*>(answer.begin()), answer.size()};
}

TEST(ControlServerTest, TakesAFreePortAndTellsIt) {
  FakeRelocations relocations;
  const auto server = StartOnLoopback(relocations);
  ASSERT_NE(server, nullptr);
  ASSERT_EQ(server->addresses().size(), 1u);
  EXPECT_NE(server->addresses()[0], "127.0.0.1:0");
  EXPECT_TRUE(RelocationClient(server->addresses()[0]).List().ok());
}

TEST(ControlServerTest, ServesOnAUnixSocketAsWell) {
  FakeRelocations relocations;
  const auto path = std::filesystem::temp_directory_path() /
                    ("control-" + std::to_string(steady_clock::now().time_since_epoch().count()));
  auto server =
      ControlServer::Start({.addresses = {"127.0.0.1:0", "unix:" + path.string()}}, relocations);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_TRUE(RelocationClient("unix:" + path.string()).List().ok());
}

TEST(ControlServerTest, HealthSaysServing) {
  FakeRelocations relocations;
  const auto server = StartOnLoopback(relocations);
  ASSERT_NE(server, nullptr);
  for (const char* service : {"", "postcopy.v1.Relocation", "postcopy.v1.Peer"}) {
    EXPECT_EQ(Health(server->addresses()[0], service), std::string("\x08\x01", 2)) << service;
  }
}

TEST(ControlServerTest, AddressThatOthersReachNeedsInsecure) {
  FakeRelocations relocations;
  const auto refused =
      ControlServer::Start({.addresses = {"127.0.0.1:0", "0.0.0.0:0"}}, relocations);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(refused.status().ToString().find("listen 0.0.0.0:0"), std::string::npos);
  EXPECT_NE(refused.status().ToString().find("--insecure"), std::string::npos);
  const auto allowed =
      ControlServer::Start({.addresses = {"0.0.0.0:0"}, .insecure = true}, relocations);
  EXPECT_TRUE(allowed.ok()) << allowed.status();
}

TEST(ControlServerTest, NoAddressIsAnError) {
  FakeRelocations relocations;
  EXPECT_EQ(ControlServer::Start({}, relocations).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ControlServerTest, AddressInUseIsNamed) {
  FakeRelocations relocations;
  const auto first = StartOnLoopback(relocations);
  ASSERT_NE(first, nullptr);
  const auto second = ControlServer::Start({.addresses = {first->addresses()[0]}}, relocations);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(second.status(),
            absl::UnavailableError("listen " + first->addresses()[0] + ": address already in use"));
}

TEST(ControlServerTest, TheAddressThatFailsIsTheOneNamed) {
  FakeRelocations relocations;
  const auto first = StartOnLoopback(relocations);
  ASSERT_NE(first, nullptr);
  const std::string taken = first->addresses()[0];
  for (const std::string& wrong : {taken, std::string("unix:/no/such/folder/socket"),
                                   std::string("192.0.2.1:0"), std::string("no-such-host.invalid:1")}) {
    const auto second =
        ControlServer::Start({.addresses = {"127.0.0.1:0", wrong}, .insecure = true}, relocations);
    ASSERT_FALSE(second.ok());
    EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_EQ(second.status().ToString().find("listen " + wrong + ": "), 13u) << second.status();
  }
}

TEST(ControlServerTest, StopEndsAWatch) {
  FakeRelocations relocations;  // stays prepared: a Watch would never end
  const auto server = StartOnLoopback(relocations);
  ASSERT_NE(server, nullptr);
  RelocationClient client(server->addresses()[0]);
  absl::Notification watching;
  absl::Status status;
  std::jthread watcher([&] {
    status = client.Watch("web1", std::chrono::seconds(60), {}, [&](const v1::Progress&) {
      if (!watching.HasBeenNotified()) watching.Notify();
    });
  });
  watching.WaitForNotification();
  const auto before = steady_clock::now();
  server->Stop();
  watcher.join();
  EXPECT_LT(steady_clock::now() - before, std::chrono::seconds(2));
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
  server->Stop();  // a second time does nothing
}

}  // namespace
}  // namespace postcopy
