// postcopyctl: parses the command line and runs one command. What the commands do is in commands.h.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/exit_code.h"
#include "cli/json_output.h"
#include "cli/local_daemon.h"
#include "config/options.h"
#include "config/typing.h"
#include "control/version.h"
#include "core/address.h"

namespace {

using postcopy::ExitCode;
using postcopy::Invocation;
using Command = std::function<ExitCode(const Invocation&)>;

// What every command takes, for the help of each.
constexpr const char* kGeneralOptions =
    "Options of every command:\n"
    "  --daemon ADDRESS            the daemon to talk to, HOST[:PORT] or unix:PATH\n"
    "  --json                      JSON on stdout, progress on stderr\n\n";

std::string Footer() {
  return "Exit codes, and the words of `outcome` in JSON:\n" + postcopy::ExitCodeHelp() +
         "\nExample:\n  postcopyctl relocate web1 --to 10.0.0.8";
}

struct Parser {
  CLI::App app{"Relocates running virtual machines at once; their memory follows."};
  Invocation invocation;
  postcopy::RelocateOptions relocate;
  bool no_wait = false;
  bool poison = false;
  bool kill = false;
  bool resume = false;
  Command command;

  CLI::App* Add(const char* name, const char* what, const char* example, Command run) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->footer(std::string(kGeneralOptions) + "Example:\n  postcopyctl " + example);
    sub->callback([this, name, run = std::move(run)] {
      invocation.command = name;
      command = run;
    });
    return sub;
  }

  CLI::App* AddForVm(const char* name, const char* what, const char* example, Command run) {
    CLI::App* sub = Add(name, what, example, std::move(run));
    sub->add_option("vm", invocation.vm, "name of the VM at this daemon")->required();
    return sub;
  }

  Parser();
};

Parser::Parser() {
  app.name("postcopyctl");
  app.require_subcommand(1);
  app.fallthrough();
  app.footer(Footer());
  app.set_version_flag("--version", "postcopyctl " + std::string(postcopy::Version()));
  app.add_option("--daemon", invocation.daemon,
                 "the daemon to talk to, HOST[:PORT] or unix:PATH (default: POSTCOPY_DAEMON, then "
                 "`listen` in /etc/postcopy/uffd-server.toml, then 127.0.0.1:7700)")
      ->type_name("ADDRESS")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_flag("--json", invocation.json, "JSON on stdout, progress on stderr");

  CLI::App* sub = AddForVm(
      "relocate", "Moves a running VM to another host and waits until its memory has followed",
      "relocate web1 --to 10.0.0.8",
      [this](const Invocation& asked) { return postcopy::Relocate(asked, relocate); });
  sub->add_option("--to", relocate.destination, "the other host's daemon")
      ->required()
      ->type_name("HOST[:PORT]");
  sub->add_option("--as", relocate.destination_vm, "name of the waiting VM there, if another");
  sub->add_flag("--keep-source", relocate.keep_source, "keep the VMM here, paused, after commit");
  auto* prepare_only =
      sub->add_flag("--prepare-only", relocate.prepare_only, "check both sides, stop nothing");
  sub->add_flag("--no-wait", no_wait, "end at the switch; memory goes on arriving")
      ->excludes(prepare_only);

  sub = AddForVm("check", "Says whether a VM can be relocated to a host, and all that is in the way",
                 "check web1 --to 10.0.0.8",
                 [this](const Invocation& asked) { return postcopy::Check(asked, relocate); });
  sub->add_option("--to", relocate.destination, "the other host's daemon")
      ->required()
      ->type_name("HOST[:PORT]");
  sub->add_option("--as", relocate.destination_vm, "name of the waiting VM there, if another");

  sub = AddForVm("switch", "Moves a VM that `relocate --prepare-only` has prepared", "switch web1",
                 [this](const Invocation& asked) { return postcopy::Switch(asked, !no_wait); });
  sub->add_flag("--no-wait", no_wait, "end at the switch; memory goes on arriving");

  Add("list", "Shows the VMs of this host and why one cannot be relocated",
      "list --daemon 10.0.0.8", postcopy::List);
  AddForVm("watch", "Shows the progress of a relocation until it has ended, at either side",
           "watch web1", postcopy::Watch);
  AddForVm("stats", "Shows all figures of a relocation once, at either side", "stats web1 --json",
           postcopy::Stats);
  AddForVm("cancel", "Gives a relocation up before the switch", "cancel web1", postcopy::Cancel);
  AddForVm("hurry", "Brings the rest of a VM's memory without regard to what the guest waits for",
           "hurry web1", postcopy::Hurry);
  sub = AddForVm(
      "source-lost",
      "At the destination: gives up a source that is gone for good, and what it had not sent",
      "source-lost web1 --poison --daemon 10.0.0.8", [this](const Invocation& asked) {
        return postcopy::SourceLost(asked, poison ? postcopy::v1::SOURCE_LOST_ACTION_POISON
                                                  : postcopy::v1::SOURCE_LOST_ACTION_KILL);
      });
  auto* run_on = sub->add_flag("--poison", poison,
                               "the VM runs on; touching what never arrived raises SIGBUS");
  sub->add_flag("--kill", kill, "ends its VMM, as in a crash")->excludes(run_on);
  sub->parse_complete_callback([this] {
    if (!poison && !kill) throw CLI::RequiredError("--poison or --kill");
  });
  sub = AddForVm("destination-lost",
                 "At the source: takes back a VM that never ran at its destination, which is gone for good",
                 "destination-lost web1 --resume",
                 [](const Invocation& asked) { return postcopy::DestinationLost(asked); });
  sub->add_flag("--resume", resume,
                "the VM goes on here; if it did run there, and wrote to its disks, this corrupts them")
      ->required();
  AddForVm("recover", "Says who owns a VM after a failure, and does what is safe", "recover web1",
           postcopy::Recover);
  AddForVm("release", "Lets a kept source VMM go after commit", "release web1", postcopy::Release);
}

// A wrong command line: exit code 2, with a complaint, and with --json an object that says the same.
int RefuseUsage(const std::vector<std::string>& words, const std::string& complaint) {
  std::cerr << "postcopyctl: " << complaint << "\nRun with --help for more information.\n";
  if (std::find(words.begin(), words.end(), "--json") != words.end()) {
    postcopy::PrintJson(
        postcopy::Head("", postcopy::OutcomeWord(ExitCode::kUsage), nullptr, complaint));
  }
  return static_cast<int>(ExitCode::kUsage);
}

// `text` as the parts take it; otherwise `complaint` begins with `option`.
bool TakeAddress(std::string& text, const std::string& option, const postcopy::AddressForm& form,
                 std::string& complaint) {
  const auto address = postcopy::Address::Parse(text, form);
  if (address.ok()) {
    text = address->ToString();
  } else {
    complaint = option + " " + address.error().message;
  }
  return address.ok();
}

}  // namespace

int main(int argc, char** argv) {
  Parser parser;
  const std::vector<std::string> words(argv + 1, argv + argc);
  if (const auto unknown = postcopy::UnknownWord(parser.app, words)) {
    return RefuseUsage(words, *unknown);
  }
  try {
    parser.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return parser.app.exit(error);  // --help, --version
    return RefuseUsage(words, error.what());
  }
  Invocation& invocation = parser.invocation;
  const char* const environment = std::getenv("POSTCOPY_DAEMON");
  postcopy::DaemonChoice daemon =
      postcopy::ChooseDaemon(invocation.daemon, environment == nullptr ? "" : environment,
                             postcopy::kDefaultConfigFile);
  std::string complaint;
  if (!TakeAddress(daemon.address, daemon.chosen_by,
                   {.default_port = postcopy::kControlPort, .may_be_unix = true}, complaint)) {
    return RefuseUsage(words, complaint);
  }
  invocation.daemon = daemon.address;
  invocation.daemon_chosen_by = daemon.chosen_by;
  postcopy::RelocateOptions& relocate = parser.relocate;
  relocate.wait = !parser.no_wait;
  if (invocation.command == "relocate" &&
      !TakeAddress(relocate.destination, "--to", {.default_port = postcopy::kControlPort},
                   complaint)) {
    return RefuseUsage(words, complaint);
  }
  return static_cast<int>(parser.command(invocation));
}
