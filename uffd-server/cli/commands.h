// postcopyctl's commands: each calls the daemon, prints what it says and returns the exit code.
//
// Errors go to stderr as "postcopyctl relocate web1: <what the daemon says>". With `json` stdout
// carries one JSON object, also when the command fails; of `watch` one a line for each message, of
// which the last one says the outcome. Not responsible for the command line (main.cc).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "cli/exit_code.h"
#include "control/postcopy.pb.h"

namespace postcopy {

struct Invocation {
  std::string daemon;
  std::string daemon_chosen_by;  // "--daemon", for messages
  bool json = false;
  std::string command;  // "relocate"
  std::string vm;       // empty for `list`
};

struct RelocateOptions {
  std::string destination;     // host:port
  std::string destination_vm;  // empty: the same name
  bool keep_source = false;
  bool prepare_only = false;
  bool wait = true;  // until every page is there
};

ExitCode List(const Invocation& invocation);
ExitCode Stats(const Invocation& invocation);
ExitCode Watch(const Invocation& invocation);
ExitCode Cancel(const Invocation& invocation);
ExitCode Hurry(const Invocation& invocation);
// At the destination: gives up the VM's source.
ExitCode SourceLost(const Invocation& invocation, v1::SourceLostAction action);
ExitCode DestinationLost(const Invocation& invocation);
ExitCode Release(const Invocation& invocation);
ExitCode Recover(const Invocation& invocation);

// Prints everything that Relocate() would be refused for; kMisfit if there is anything. Changes
// nothing at either host.
ExitCode Check(const Invocation& invocation, const RelocateOptions& options);

// Prepare, Switch, and Watch until commit. Ctrl-C before the switch cancels it.
ExitCode Relocate(const Invocation& invocation, const RelocateOptions& options);
// The same from Switch on, for a VM that was prepared by `relocate --prepare-only`.
ExitCode Switch(const Invocation& invocation, bool wait);

// Writes `message` to stderr behind the words that name the command.
void Complain(const Invocation& invocation, const std::string& message);
// The error's text; of a daemon that is unreachable also how its address was chosen, and what to do.
std::string MessageOf(const Invocation& invocation, const absl::Status& status);
// The same for an error; with `json` also an object with `vm`, `outcome` and `error` on stdout.
ExitCode Fail(const Invocation& invocation, const absl::Status& status);

}  // namespace postcopy
