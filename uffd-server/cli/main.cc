// postcopyctl: parses the command line and runs one command. What the commands do is in commands.h.
#include <CLI/CLI.hpp>
#include <functional>
#include <iostream>
#include <string>

#include "cli/commands.h"
#include "control/address.h"
#include "control/version.h"

namespace {

using postcopy::ExitCode;
using postcopy::Invocation;
using Command = std::function<ExitCode(const Invocation&)>;

constexpr const char* kExitCodes =
    "Exit codes: 0 done, 1 failed, 2 usage, 3 no such VM, 4 the two sides do not fit,\n"
    "5 daemon or peer unreachable, 6 rolled back, 7 cancelled, 8 switched but not finished.\n\n"
    "Example:\n  postcopyctl relocate web1 --to 10.77.0.12";

struct Parser {
  CLI::App app{"Relocates running virtual machines at once; their memory follows."};
  Invocation invocation{"127.0.0.1:7700", false, "", ""};
  postcopy::RelocateOptions relocate;
  bool no_wait = false;
  bool poison = false;
  bool kill = false;
  Command command;

  CLI::App* Add(const char* name, const char* what, const char* example, Command run) {
    CLI::App* sub = app.add_subcommand(name, what);
    sub->footer(std::string("Example:\n  postcopyctl ") + example);
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
  app.footer(kExitCodes);
  app.set_version_flag("--version", "postcopyctl " + std::string(postcopy::Version()));
  app.add_option("--daemon", invocation.daemon, "the daemon to ask, host:port or unix:path")
      ->envname("POSTCOPY_DAEMON")
      ->capture_default_str();
  app.add_flag("--json", invocation.json, "one JSON object on stdout, progress on stderr");

  CLI::App* sub = AddForVm(
      "relocate", "Moves a running VM to another host and waits until its memory has followed",
      "relocate web1 --to 10.77.0.12",
      [this](const Invocation& asked) { return postcopy::Relocate(asked, relocate); });
  sub->add_option("--to", relocate.destination, "the other host's daemon, host[:port]")
      ->required()
      ->type_name("HOST[:PORT]");
  sub->add_option("--as", relocate.destination_vm, "name of the waiting VM there, if another");
  sub->add_flag("--keep-source", relocate.keep_source, "keep the VMM here, paused, after commit");
  auto* prepare_only =
      sub->add_flag("--prepare-only", relocate.prepare_only, "check both sides, stop nothing");
  sub->add_flag("--no-wait", no_wait, "end at the switch; memory goes on arriving")
      ->excludes(prepare_only);

  sub = AddForVm("switch", "Moves a VM that `relocate --prepare-only` has prepared", "switch web1",
                 [this](const Invocation& asked) { return postcopy::Switch(asked, !no_wait); });
  sub->add_flag("--no-wait", no_wait, "end at the switch; memory goes on arriving");

  Add("list", "Shows the VMs of this host and why one cannot be relocated",
      "list --daemon 10.77.0.12:7700", postcopy::List);
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
      "source-lost web1 --poison --daemon 10.77.0.12:7700", [this](const Invocation& asked) {
        return postcopy::SourceLost(asked, poison ? postcopy::v1::SOURCE_LOST_ACTION_POISON
                                                  : postcopy::v1::SOURCE_LOST_ACTION_KILL);
      });
  auto* run_on = sub->add_flag("--poison", poison,
                               "the VM runs on; touching what never arrived raises SIGBUS");
  sub->add_flag("--kill", kill, "ends its VMM, as in a crash")->excludes(run_on);
  sub->parse_complete_callback([this] {
    if (!poison && !kill) throw CLI::RequiredError("--poison or --kill");
  });
  AddForVm("recover", "Says who owns a VM after a failure, and does what is safe", "recover web1",
           postcopy::Recover);
  AddForVm("release", "Lets a kept source VMM go after commit", "release web1", postcopy::Release);
}

}  // namespace

int main(int argc, char** argv) {
  Parser parser;
  try {
    parser.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return parser.app.exit(error);  // --help, --version
    std::cerr << "postcopyctl: " << error.what() << "\nRun with --help for more information.\n";
    return static_cast<int>(ExitCode::kUsage);
  }
  parser.relocate.wait = !parser.no_wait;
  parser.relocate.destination =
      postcopy::WithDefaultPort(parser.relocate.destination, postcopy::kControlPort);
  parser.invocation.daemon =
      postcopy::WithDefaultPort(parser.invocation.daemon, postcopy::kControlPort);
  return static_cast<int>(parser.command(parser.invocation));
}
