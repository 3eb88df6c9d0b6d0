// uffd-server: one daemon a host. Puts the parts together as its options (config/) say, waits for a
// signal.
#include <signal.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "config/config_file.h"
#include "config/log_format.h"
#include "config/options.h"
#include "control/control_server.h"
#include "control/grpc_peer.h"
#include "control/version.h"
#include "core/printable_text.h"
#include "platform/descriptor_limit.h"
#include "platform/tcp_socket.h"
#include "platform/userfault.h"
#include "relocation/relocator.h"
#include "server/agent_server.h"
#include "server/ownership_store.h"
#include "server/page_server.h"
#include "server/vm_registry.h"
#include "trace/trace_folder.h"
#include "vmm/guest_states.h"
#include "vmm/qemu_driver.h"

namespace postcopy {
namespace {

constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

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

absl::StatusOr<SourceLostPolicy> SourceLostPolicyOf(const Options& options) {
  SourceLostPolicy policy;
  policy.after = std::chrono::seconds(options.source_lost_after_s);
  if (options.source_lost == "kill") policy.action = SourceLostAction::kKill;
  if (options.source_lost == "poison") policy.action = SourceLostAction::kPoison;
  if (policy.action == SourceLostAction::kPoison && !KernelCanPoison()) {
    return absl::FailedPreconditionError(
        "source-lost poison: this host's kernel has no UFFDIO_POISON (Linux 6.6 or later)");
  }
  return policy;
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "uffd-server: %s\n",
               PrintableText({status.message().data(), status.message().size()}).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

// What the command line leaves open, from the file that it names or from the default one.
absl::Status CompleteFromConfigFile(CLI::App& app, const Options& options) {
  if (!options.config_file.empty()) return ReadConfigFile(options.config_file, app);
  std::error_code unknown;
  if (!std::filesystem::exists(kDefaultConfigFile, unknown)) return absl::OkStatus();
  return ReadConfigFile(kDefaultConfigFile, app);
}

int Run(Options options) {
  absl::Status status = CompleteDataAddresses(options);
  if (!status.ok()) return Fail(status);
  auto faults = FaultPlan::Parse(options.faults, options.runtime_dir);
  if (!faults.ok()) return Fail(faults.status());
  const auto source_lost = SourceLostPolicyOf(options);
  if (!source_lost.ok()) return Fail(source_lost.status());
  auto store = OwnershipStore::Open(options.state_dir);
  if (!store.ok()) return Fail(store.status());

  std::optional<TraceFolder> traces;
  if (!options.trace_folder.empty()) {
    auto folder = TraceFolder::Open(options.trace_folder);
    if (!folder.ok()) return Fail(folder.status());
    traces = *std::move(folder);
  }

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
  auto relocator = Relocator::Start(DaemonParts{
      .registry = registry,
      .page_server = **page_server,
      .store = *store,
      .peers = peers,
      .connect_vmm = [](const VmRecord& vm) -> absl::StatusOr<std::unique_ptr<VmmDriver>> {
        auto driver = QemuDriver::Connect(vm.qmp_path, vm.pid());
        if (!driver.ok()) return driver.status();
        return std::unique_ptr<VmmDriver>(std::move(*driver));
      },
      .ask_guests = [](const std::vector<Monitor>& monitors) { return AskGuestStates(monitors); },
      .faults = *std::move(faults),
      .control_address = options.advertise.empty() ? options.listen.front() : options.advertise,
      .data_addresses =
          options.advertise_data.empty() ? (*page_server)->addresses() : options.advertise_data,
      .bulk_lanes = options.bulk_lanes,
      .traces = std::move(traces),
      .source_lost = *source_lost,
  });
  if (!relocator.ok()) return Fail(relocator.status());
  auto control = ControlServer::Start({options.listen, options.insecure}, **relocator);
  if (!control.ok()) return Fail(control.status());
  spdlog::info("uffd-server {} ready, control {}, data {}, agent {}", Version(),
               (*control)->addresses().front(), (*page_server)->addresses().front(),
               (*agent_server)->socket_path());

  sd_notify(0, "READY=1");  // does nothing where no service manager asks for it
  int signal = 0;
  sigwait(&ends, &signal);
  sd_notify(0, "STOPPING=1");
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
  const absl::Status configured = postcopy::CompleteFromConfigFile(app, options);
  if (!configured.ok()) return postcopy::Fail(configured);
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  postcopy::SetLogFormat();
  return postcopy::Run(std::move(options));
}
