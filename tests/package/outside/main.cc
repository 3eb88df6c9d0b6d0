// Uses the C++ wrapper as an outside program would. Exit code 0: it answered as its header says.
#include <cstdio>
#include <postcopy/postcopy.hpp>
#include <system_error>
#include <utility>

int main() {
  std::error_code error;
  postcopy::AttachmentOptions options;
  if (postcopy::Attachment::Attach(options, error) || error != std::errc::invalid_argument) {
    std::fprintf(stderr, "attach without a name: %s\n", error.message().c_str());
    return 1;
  }
  options.vm_name = "outside";
  options.agent_path = "/nonexistent/agent.sock";
  options.log = [](const std::string&) {};
  postcopy::Attachment vm = postcopy::Attachment::Attach(options, error);
  postcopy::Attachment moved = std::move(vm);
  if (error || !moved || vm) {
    std::fprintf(stderr, "attach without a daemon: %s\n", error.message().c_str());
    return 1;
  }
  std::puts(postcopy_version());
  return 0;
}
