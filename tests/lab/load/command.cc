#include "command.h"

#include "http_connection.h"

namespace postcopy_lab {

void AddUrlBase(CLI::App* command, std::string* url) {
  command->add_option("--url-base", *url, "the guest, http://ADDRESS[:PORT]")
      ->required()
      ->check([](const std::string& text) {
        return ParseUrlBase(text) ? std::string() : text + " is not http://ADDRESS[:PORT]";
      });
}

void AddTarget(CLI::App* command, Target* target, const char* seed_help) {
  AddUrlBase(command, &target->url_base);
  command->add_option("--files", target->files, "the guest's files, /f/0 to /f/FILES-1")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  command->add_option("--seed", target->seed, seed_help)->capture_default_str();
}

void AddEnding(CLI::App* command, Ending* ending) {
  command->add_option("--seconds", ending->seconds, "length of the run; 0: until SIGTERM or SIGINT")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command->add_option("--output", ending->output, "file for the JSON; default: standard output");
}

LoopOptions LoopInput::Options() const {
  LoopOptions options = loop;
  options.think = std::chrono::milliseconds(think_ms);
  options.timeout = std::chrono::milliseconds(timeout_ms);
  options.duration = ending.duration();
  options.output = ending.output;
  return options;
}

void AddLoop(CLI::App* command, LoopInput* input) {
  command->add_option("--connections", input->loop.connections)
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  command
      ->add_option("--think-ms", input->think_ms,
                   "from a response to the next request on its connection")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  command
      ->add_option("--timeout-ms", input->timeout_ms,
                   "a request older than that has failed; 0: never")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  AddEnding(command, &input->ending);
}

}  // namespace postcopy_lab
