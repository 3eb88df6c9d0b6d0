#include "relocation/lost_hook.h"

#include <fstream>
#include <iterator>
#include <string_view>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace postcopy {
namespace {

// The value of -runas USER, or of user=USER in -run-with; the same with -chroot and chroot=.
std::string ValueOf(const std::vector<std::string>& words, std::string_view option,
                    std::string_view key) {
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    std::string_view word = words[i];
    while (!word.empty() && word.front() == '-') word.remove_prefix(1);
    if (word == option) return words[i + 1];
    if (word != "run-with") continue;
    const std::vector<std::string> parts = absl::StrSplit(words[i + 1], ',');
    for (const std::string& part : parts) {
      if (part.compare(0, key.size(), key) == 0) return part.substr(key.size());
    }
  }
  return "";
}

}  // namespace

std::string WhyHookIsAway(const std::vector<std::string>& command_line) {
  const std::string folder = ValueOf(command_line, "chroot", "chroot=");
  if (!folder.empty()) {
    return absl::StrCat("its QEMU has changed its root directory to ", folder,
                        ", where its hook looks for this daemon's socket: bind-mount the folder of "
                        "agent.sock at the same path below ",
                        folder, ", and the hook comes back by itself");
  }
  const std::string user = ValueOf(command_line, "runas", "user=");
  if (!user.empty()) {
    return absl::StrCat("its QEMU has become user ", user,
                        ", who may not connect to agent.sock unless the socket's group (agent-group) "
                        "is one of this user's: let it be, and the hook comes back by itself");
  }
  return "";
}

std::string WhyHookIsAway(int vmm_pid) {
  if (vmm_pid <= 0) return "";
  std::ifstream file(absl::StrCat("/proc/", vmm_pid, "/cmdline"), std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  return WhyHookIsAway(std::vector<std::string>(absl::StrSplit(text, '\0', absl::SkipEmpty())));
}

}  // namespace postcopy
