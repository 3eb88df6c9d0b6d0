#include "control/control_server.h"

#include <grpcpp/ext/health_check_service_server_builder_option.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "absl/base/call_once.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "control/channel.h"
#include "control/grpc_log.h"
#include "control/peer_service.h"
#include "control/relocation_service.h"
#include "core/address.h"

namespace postcopy {
namespace {

constexpr std::chrono::seconds kShutdownLimit{2};
// Clients ping every kKeepaliveInterval; what comes more often than this is refused.
constexpr int kShortestPingIntervalMs = 1000;

absl::StatusOr<std::vector<Address>> ParseAddresses(const ControlServerOptions& options) {
  if (options.addresses.empty()) {
    return absl::InvalidArgumentError("listen: no address was given");
  }
  std::vector<Address> addresses;
  for (const std::string& text : options.addresses) {
    const auto address = Address::Parse(
        text, {.default_port = kControlPort, .may_be_unix = true, .may_listen = true});
    if (!address.ok()) return absl::InvalidArgumentError("listen " + address.error().message);
    if (!options.insecure && !address->IsLocalOnly()) {
      return absl::FailedPreconditionError(absl::StrFormat(
          "listen %s: other hosts can reach it and nothing is encrypted yet; give --insecure to "
          "listen all the same, on a network that you trust",
          text));
    }
    addresses.push_back(*address);
  }
  return addresses;
}

// Each call takes a thread for as long as it runs: a connection may have so many at once, and all of
// them together. What is more waits, or fails with RESOURCE_EXHAUSTED. A daemon has one connection to
// each peer, and a few calls for each VM that it relocates there.
constexpr int kMaxCallsPerConnection = 64;
constexpr int kMaxServerThreads = 512;
// gRPC's own buffers. Under pressure it refuses what is new; a message has kMaxMessageBytes.
constexpr size_t kMaxServerBytes = size_t{512} << 20;
// Nothing was called over a connection for so long: it is closed, and made again by the next call.
constexpr int kIdleConnectionMs = 10 * 60 * 1000;

void SetArguments(grpc::ServerBuilder& builder) {
  grpc::ResourceQuota quota("control");
  quota.SetMaxThreads(kMaxServerThreads);
  quota.Resize(kMaxServerBytes);
  builder.SetResourceQuota(quota);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxCallsPerConnection);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kIdleConnectionMs);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  builder.SetMaxSendMessageSize(kMaxMessageBytes);
  // A second daemon must not share the port silently.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS,
                             static_cast<int>(kKeepaliveInterval.count()));
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                             static_cast<int>(kKeepaliveTimeout.count()));
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kShortestPingIntervalMs);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);  // no limit
}

}  // namespace

struct ControlServer::Serving {
  explicit Serving(Relocations& relocations)
      : relocation_service(relocations), peer_service(relocations) {}

  RelocationService relocation_service;
  PeerService peer_service;
  std::unique_ptr<grpc::Server> server;  // ended before the services
  absl::once_flag stopped;
};

absl::StatusOr<std::unique_ptr<ControlServer>> ControlServer::Start(
    const ControlServerOptions& options, Relocations& relocations) {
  const auto parsed = ParseAddresses(options);
  if (!parsed.ok()) return parsed.status();
  TakeGrpcLog();
  TakeLastSystemError();
  grpc::EnableDefaultHealthCheckService(true);
  auto serving = std::make_unique<Serving>(relocations);
  grpc::ServerBuilder builder;
  SetArguments(builder);
  builder.RegisterService(&serving->relocation_service);
  builder.RegisterService(&serving->peer_service);
  std::vector<int> ports(options.addresses.size(), 0);
  for (size_t i = 0; i < ports.size(); ++i) {
    builder.AddListeningPort((*parsed)[i].ToString(), grpc::InsecureServerCredentials(), &ports[i]);
  }
  serving->server = builder.BuildAndStart();
  if (serving->server == nullptr) {
    const auto failed = std::find(ports.begin(), ports.end(), 0);  // in their order
    const size_t i = failed == ports.end() ? 0 : static_cast<size_t>(failed - ports.begin());
    const std::string cause = TakeLastSystemError();
    return absl::UnavailableError(
        absl::StrFormat("listen %s: %s", options.addresses[i],
                        cause.empty() ? "not an address to listen on" : cause));
  }
  std::vector<std::string> addresses;
  for (size_t i = 0; i < ports.size(); ++i) {
    const Address& address = (*parsed)[i];
    const auto port = static_cast<uint16_t>(ports[i]);
    addresses.push_back((address.is_unix() ? address : address.WithPort(port)).ToString());
  }
  auto* health = serving->server->GetHealthCheckService();
  health->SetServingStatus(v1::Relocation::service_full_name(), true);
  health->SetServingStatus(v1::Peer::service_full_name(), true);
  spdlog::info("control listening addresses {}", absl::StrJoin(addresses, ","));
  return std::unique_ptr<ControlServer>(
      new ControlServer(std::move(serving), std::move(addresses)));
}

ControlServer::ControlServer(std::unique_ptr<Serving> serving, std::vector<std::string> addresses)
    : serving_(std::move(serving)), addresses_(std::move(addresses)) {}

ControlServer::~ControlServer() { Stop(); }

void ControlServer::Stop() {
  absl::call_once(serving_->stopped, [this] {
    serving_->server->GetHealthCheckService()->Shutdown();
    serving_->relocation_service.EndWatches();
    serving_->server->Shutdown(std::chrono::system_clock::now() + kShutdownLimit);
    serving_->server->Wait();
    spdlog::info("control stopped addresses {}", absl::StrJoin(addresses_, ","));
  });
}

}  // namespace postcopy
