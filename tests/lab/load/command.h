// The subcommands of lab-load-client: their command lines, and what several of them take.
//
// Not responsible for what they do: load_run.h, kv_run.h, browse_run.h and verify_run.h.
#ifndef POSTCOPY_LAB_LOAD_COMMAND_H_
#define POSTCOPY_LAB_LOAD_COMMAND_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <memory>
#include <string>

#include "closed_loop.h"

namespace postcopy_lab {

// Stays where it is: its options point into it until the CLI::App has parsed.
class Command {
 public:
  Command(const Command&) = delete;
  Command& operator=(const Command&) = delete;
  virtual ~Command() = default;

  bool parsed() const { return app_->parsed(); }
  // The process's exit code. REQUIRES: parsed().
  virtual int Run() = 0;

 protected:
  explicit Command(CLI::App* app) : app_(app) {}

  CLI::App* const app_;
};

// Each adds its subcommand to `app`, which must outlive what is returned.
std::unique_ptr<Command> AddRunCommand(CLI::App& app);
std::unique_ptr<Command> AddKvCommand(CLI::App& app);
std::unique_ptr<Command> AddBrowseCommand(CLI::App& app);
std::unique_ptr<Command> AddVerifyCommand(CLI::App& app);

// --url-base: `url` is one of ParseUrlBase once parsed.
void AddUrlBase(CLI::App* command, std::string* url);

// The guest's files.
struct Target {
  std::string url_base;
  uint64_t files = 4096;
  uint64_t seed = 1;
};
void AddTarget(CLI::App* command, Target* target, const char* seed_help);

// When a run ends, and where its JSON goes.
struct Ending {
  double seconds = 0;
  std::string output;

  std::chrono::milliseconds duration() const {
    return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000));
  }
};
void AddEnding(CLI::App* command, Ending* ending);

// A closed loop.
struct LoopInput {
  LoopOptions loop;
  int64_t think_ms = loop.think.count();
  int64_t timeout_ms = 0;
  Ending ending;

  LoopOptions Options() const;
};
void AddLoop(CLI::App* command, LoopInput* input);

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_COMMAND_H_
