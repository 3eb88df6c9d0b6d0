// uffd-server: one daemon a host. Reads its options, puts the parts together, waits for a signal.
#include <signal.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/control_server.h"
#include "control/grpc_peer.h"
#include "control/version.h"
#include "platform/descriptor_limit.h"
#include "platform/tcp_socket.h"
#include "relocation/relocator.h"
#include "server/agent_server.h"
#include "server/ownership_store.h"
#include "server/page_server.h"
#include "server/vm_registry.h"
#include "vmm/qemu_driver.h"

namespace postcopy {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

struct Options {
  std::vector<std::string> listen = {"127.0.0.1:7700"};
  std::vector<std::string> data_listen;
  std::string advertise;
  std::vector<std::string> advertise_data;
  std::string runtime_dir = "/run/postcopy";
  std::string state_dir = "/var/lib/postcopy";
  std::string agent_group;
  bool insecure = false;
  size_t bulk_lanes = 2;
  std::vector<std::string> faults;
  std::string log_level = "info";
};

void Declare(CLI::App& app, Options& options) {
  app.set_config("--config", "/etc/postcopy/uffd-server.toml",
                 "File with the same options, as name = value");
  app.add_option("--listen", options.listen,
                 "Addresses of the control plane, HOST:PORT or unix:PATH")
      ->capture_default_str();
  app.add_option("--data-listen", options.data_listen,
                 "Addresses of the page server, HOST:PORT (default: the host of --listen, port 7701)");
  app.add_option("--advertise", options.advertise,
                 "Control address that other daemons are told (default: the first of --listen)");
  app.add_option("--advertise-data", options.advertise_data,
                 "Page server addresses that other daemons are told (default: --data-listen)");
  app.add_option("--runtime-dir", options.runtime_dir, "Directory of agent.sock")
      ->capture_default_str();
  app.add_option("--agent-group", options.agent_group,
                 "Group whose processes may register VMs at agent.sock, e.g. that of an unprivileged "
                 "QEMU (default: the daemon's own)");
  app.add_option("--state-dir", options.state_dir, "Directory of the ownership records")
      ->capture_default_str();
  app.add_flag("--insecure", options.insecure,
               "Listen on addresses that other hosts can reach, without encryption");
  app.add_option("--bulk-lanes", options.bulk_lanes, "Connections for the bulk, at the destination")
      ->capture_default_str()
      ->check(CLI::Range(1, 16));
  app.add_option("--fault", options.faults,
                 "For tests: corrupt-one-byte[=PAGES] or hold-at=STEP; may be repeated");
  app.add_option("--log-level", options.log_level, "trace, debug, info, warn, err or off")
      ->capture_default_str()
      ->check(CLI::IsMember({"trace", "debug", "info", "warn", "err", "off"}));
}

// The page server's addresses, and whether they may be listened on.
absl::Status CompleteDataAddresses(Options& options) {
  if (options.data_listen.empty()) {
    const std::string& control = options.listen.front();
    const bool is_unix = control.rfind("unix:", 0) == 0;
    const std::string host = is_unix ? "127.0.0.1" : control.substr(0, control.rfind(':'));
    options.data_listen.push_back(host + ":7701");
  }
  for (const std::string& address : options.data_listen) {
    const auto parsed = ParseSocketAddress(address);
    if (!parsed.ok()) return absl::InvalidArgumentError(parsed.error().message);
    if (!options.insecure && !IsLoopback(*parsed)) {
      return absl::FailedPreconditionError(
          absl::StrCat("listen ", address, ": other hosts can reach it and there is no encryption; "
                       "--insecure allows it"));
    }
  }
  return absl::OkStatus();
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "uffd-server: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

int Run(Options options) {
  absl::Status status = CompleteDataAddresses(options);
  if (!status.ok()) return Fail(status);
  auto faults = FaultPlan::Parse(options.faults, options.runtime_dir);
  if (!faults.ok()) return Fail(faults.status());
  auto store = OwnershipStore::Open(options.state_dir);
  if (!store.ok()) return Fail(store.status());

  // Every thread inherits this: signals come to the sigwait() below.
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);

  const auto descriptors = RaiseDescriptorLimit();
  if (!descriptors.ok()) spdlog::warn("{}", descriptors.error().message);

  VmRegistry registry;
  AgentServerOptions agent_options;
  agent_options.runtime_dir = options.runtime_dir;
  agent_options.socket_group = options.agent_group;
  auto agent_server = AgentServer::Start(agent_options, registry);
  if (!agent_server.ok()) return Fail(agent_server.status());
  auto page_server = PageServer::Listen(options.data_listen);
  if (!page_server.ok()) return Fail(page_server.status());

  GrpcPeerFactory peers;
  Relocator relocator(DaemonParts{
      .registry = registry,
      .page_server = **page_server,
      .store = *store,
      .peers = peers,
      .connect_vmm = [](const std::string& path) -> absl::StatusOr<std::unique_ptr<VmmDriver>> {
        auto driver = QemuDriver::Connect(path);
        if (!driver.ok()) return driver.status();
        return std::unique_ptr<VmmDriver>(std::move(*driver));
      },
      .faults = *std::move(faults),
      .control_address = options.advertise.empty() ? options.listen.front() : options.advertise,
      .data_addresses = options.advertise_data.empty() ? (*page_server)->addresses()
                                                       : options.advertise_data,
      .bulk_lanes = options.bulk_lanes,
  });
  auto control = ControlServer::Start({options.listen, options.insecure}, relocator);
  if (!control.ok()) return Fail(control.status());
  spdlog::info("uffd-server {} ready, control {}, data {}, agent {}", Version(),
               (*control)->addresses().front(), (*page_server)->addresses().front(),
               (*agent_server)->socket_path());

  int signal = 0;
  sigwait(&ends, &signal);
  spdlog::info("uffd-server ends, signal {}", signal);
  return kExitOk;
}

}  // namespace
}  // namespace postcopy

int main(int argc, char** argv) {
  CLI::App app(
      "Serves the memory of this host's virtual machines while they are relocated, and brings the "
      "memory of those that arrive.",
      "uffd-server");
  app.footer(
      "Example, on a host that others reach as 10.0.0.7:\n"
      "  uffd-server --listen 10.0.0.7:7700 --insecure\n"
      "See also: postcopyctl --help");
  app.set_version_flag("--version", std::string(postcopy::Version()));
  postcopy::Options options;
  postcopy::Declare(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? postcopy::kExitOk : postcopy::kExitUsage;
  }
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  return postcopy::Run(std::move(options));
}
