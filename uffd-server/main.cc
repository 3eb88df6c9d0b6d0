// uffd-server: one daemon a host. Puts the parts together as its options (config/) say, waits for a
// signal.
#include <signal.h>
#include <spdlog/spdlog.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "config/config_file.h"
#include "config/log_format.h"
#include "config/options.h"
#include "config/typing.h"
#include "control/control_server.h"
#include "control/grpc_peer.h"
#include "control/version.h"
#include "core/address.h"
#include "core/printable_text.h"
#include "host/shutdown.h"
#include "platform/descriptor_limit.h"
#include "platform/folder_lock.h"
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

constexpr AddressForm kListenForm{
    .default_port = std::nullopt, .may_be_unix = true, .may_listen = true};

// The page server's addresses, and whether they may be listened on.
absl::Status CompleteDataAddresses(Options& options) {
  if (options.data_listen.empty()) {
    std::vector<std::string> local;
    for (const std::string& text : options.listen) {
      const auto control = Address::Parse(text, kListenForm);
      if (!control.ok()) return absl::InvalidArgumentError("listen " + control.error().message);
      if (control->is_unix()) continue;
      const std::string data = control->WithPort(kDataPort).ToString();
      std::vector<std::string>& hosts = control->IsLocalOnly() ? local : options.data_listen;
      if (std::find(hosts.begin(), hosts.end(), data) == hosts.end()) hosts.push_back(data);
    }
    // Loopback is for this host's own tools, where there are other addresses.
    if (options.data_listen.empty()) options.data_listen = local;
    if (options.data_listen.empty()) options.data_listen.push_back("127.0.0.1:7701");
  }
  for (const std::string& text : options.data_listen) {
    const auto address = Address::Parse(text, kListenForm);
    if (!address.ok()) return absl::InvalidArgumentError("listen " + address.error().message);
    if (!options.insecure && !address->IsLocalOnly()) {
      return absl::FailedPreconditionError(
          absl::StrCat("listen ", text, ": other hosts can reach it and there is no encryption; "
                       "--insecure allows it"));
    }
  }
  return absl::OkStatus();
}

// What others are told: what the operator says, otherwise what is listened on.
OwnAddresses OwnAddressesOf(const Options& options, const std::vector<std::string>& data) {
  OwnAddresses own{options.listen, data};
  if (!options.advertise.empty()) {
    own.control = {options.advertise};
    own.control_as_said = true;
  }
  if (!options.advertise_data.empty()) {
    own.data = options.advertise_data;
    own.data_as_said = true;
  }
  return own;
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

// This daemon's alone, for as long as it runs: its records, and its agents' socket.
absl::StatusOr<std::vector<FolderLock>> LockFolders(const Options& options) {
  std::vector<FolderLock> locks;
  for (const std::string& folder : {options.state_dir, options.runtime_dir}) {
    std::error_code unknown;
    if (!locks.empty() && std::filesystem::equivalent(options.state_dir, folder, unknown)) continue;
    auto lock = FolderLock::Take(folder);
    if (!lock.ok()) return absl::FailedPreconditionError(lock.error().message);
    locks.push_back(*std::move(lock));
  }
  return locks;
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
  auto locks = LockFolders(options);
  if (!locks.ok()) return Fail(locks.status());
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

  if (geteuid() != 0) {
    spdlog::warn(
        "uffd-server runs as user {}, not as root: VMs that arrive need access to /dev/userfaultfd of "
        "their own, and QMP sockets and QEMUs of other users cannot be reached or ended",
        geteuid());
  }
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
      .addresses = OwnAddressesOf(options, (*page_server)->addresses()),
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
  if (options.shutdown_wait_s > 0 && HostIsShuttingDown(kSystemManagerSocket)) {
    AwaitOwedMemory(**relocator, std::chrono::seconds(options.shutdown_wait_s), ends);
  }
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
      "  uffd-server --listen 10.0.0.7 --insecure\n"
      "See also: postcopyctl --help");
  app.set_version_flag("--version", "uffd-server " + std::string(postcopy::Version()));
  postcopy::Options options;
  postcopy::Declare(app, options);
  const auto unknown = postcopy::UnknownWord(app, {argv + 1, argv + argc});
  try {
    if (unknown.has_value()) throw CLI::ExtrasError(*unknown, CLI::ExitCodes::ExtrasError);
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    std::fprintf(stderr, "uffd-server: %s\nRun with --help for more information.\n", error.what());
    return postcopy::kExitUsage;
  }
  const absl::Status configured = postcopy::CompleteFromConfigFile(app, options);
  if (!configured.ok()) return postcopy::Fail(configured);
  spdlog::set_level(spdlog::level::from_str(options.log_level));
  postcopy::SetLogFormat();
  return postcopy::Run(std::move(options));
}
