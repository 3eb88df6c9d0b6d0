#include "platform/process_identity.h"

#include <charconv>
#include <string_view>

#include "platform/durable_file.h"

namespace postcopy {
namespace {

constexpr size_t kMaxStatBytes = 4096;
// proc(5): the start time is field 22; what follows the name in parentheses begins with field 3.
constexpr int kFieldsBeforeStart = 19;

Result<std::string> BootId() {
  auto text = ReadWholeFile("/proc/sys/kernel/random/boot_id", kMaxStatBytes);
  if (!text.ok()) return text.error();
  return text->substr(0, text->find('\n'));
}

Result<uint64_t> StartedTicks(int pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const auto text = ReadWholeFile(path, kMaxStatBytes);
  if (!text.ok()) return text.error();
  // The name may hold anything, parentheses and spaces included.
  size_t at = text->rfind(')');
  for (int field = 0; field <= kFieldsBeforeStart && at != std::string::npos; ++field) {
    at = text->find(' ', at + 1);
  }
  uint64_t ticks = 0;
  if (at == std::string::npos ||
      std::from_chars(text->data() + at + 1, text->data() + text->size(), ticks).ec != std::errc()) {
    return Error{ErrorCode::kProtocol, "read " + path + ": no start time"};
  }
  return ticks;
}

}  // namespace

Result<ProcessIdentity> Identify(const Pidfd& process) {
  const auto ticks = StartedTicks(process.pid());
  // In this order: what was read is of the process that is held, which lived until now.
  if (process.HasEnded()) return Error{ErrorCode::kUnavailable, "the process has ended"};
  if (!ticks.ok()) return ticks.error();
  auto boot_id = BootId();
  if (!boot_id.ok()) return boot_id.error();
  return ProcessIdentity{process.pid(), *ticks, *std::move(boot_id)};
}

bool IsOfThisBoot(const ProcessIdentity& identity) {
  const auto boot_id = BootId();
  return boot_id.ok() && *boot_id == identity.boot_id;
}

bool HasEnded(const ProcessIdentity& identity) {
  if (identity.pid == 0) return false;
  if (!identity.boot_id.empty()) {
    const auto boot_id = BootId();
    if (!boot_id.ok()) return false;
    if (*boot_id != identity.boot_id) return true;
  }
  const auto process = Pidfd::Open(identity.pid);
  if (!process.ok()) return process.error().code == ErrorCode::kUnavailable;
  if (process->HasEnded()) return true;
  if (identity.started_ticks == 0) return false;
  const auto ticks = StartedTicks(identity.pid);
  return ticks.ok() && *ticks != identity.started_ticks;
}

}  // namespace postcopy
