// lab-load-client: the traffic of the lab. This file only finds the subcommand; see command.h.
#include <CLI/CLI.hpp>

#include "command.h"

int main(int argc, char** argv) {
  CLI::App app(
      "The lab's load client: HTTP and key-value loads, and a check of what a guest serves.");
  app.require_subcommand(1);
  const std::unique_ptr<postcopy_lab::Command> commands[] = {
      postcopy_lab::AddRunCommand(app),
      postcopy_lab::AddKvCommand(app),
      postcopy_lab::AddBrowseCommand(app),
      postcopy_lab::AddVerifyCommand(app),
  };
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  for (const auto& command : commands) {
    if (command->parsed()) return command->Run();
  }
  return 2;  // require_subcommand() lets nobody come here
}
