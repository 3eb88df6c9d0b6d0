#include "host/shutdown.h"

#include <spdlog/spdlog.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-daemon.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace postcopy {
namespace {

using std::chrono::seconds;
using std::chrono::steady_clock;

constexpr uint64_t kManagerTimeoutUs = 5'000'000;
// What the service manager is asked for again and again; it must be longer than a look takes, which
// asks each destination for 2 s at most.
constexpr seconds kMoreTime{60};
constexpr seconds kLogEvery{10};

// What is left, for people; empty: nothing.
std::string LeftText(const std::vector<Progress>& owed) {
  if (owed.empty()) return "";
  uint64_t bytes = 0;
  bool known = true;
  for (const Progress& each : owed) {
    known = known && each.data_bytes.has_value() && each.present_bytes.has_value();
    if (known) bytes += *each.data_bytes - std::min(*each.data_bytes, *each.present_bytes);
  }
  const Progress& first = owed.front();
  std::string text = absl::StrCat("memory of VM ", first.vm, " is still needed by ",
                                  first.peer.empty() ? "another host" : first.peer);
  if (owed.size() > 1) absl::StrAppend(&text, ", and of ", owed.size() - 1, " more VMs by others");
  if (known) absl::StrAppendFormat(&text, ", %.0f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

}  // namespace

bool HostIsShuttingDown(const std::string& manager_socket) {
  sd_bus* opened = nullptr;
  if (sd_bus_new(&opened) < 0) return false;
  const std::unique_ptr<sd_bus, decltype(&sd_bus_close_unref)> bus(opened, &sd_bus_close_unref);
  const std::string address = "unix:path=" + manager_socket;
  if (sd_bus_set_address(bus.get(), address.c_str()) < 0) return false;
  if (sd_bus_set_method_call_timeout(bus.get(), kManagerTimeoutUs) < 0) return false;
  if (sd_bus_start(bus.get()) < 0) return false;
  char* text = nullptr;
  const int asked = sd_bus_get_property_string(bus.get(), "org.freedesktop.systemd1",
                                               "/org/freedesktop/systemd1",
                                               "org.freedesktop.systemd1.Manager", "SystemState",
                                               nullptr, &text);
  const std::unique_ptr<char, decltype(&std::free)> state(text, &std::free);
  return asked >= 0 && std::string_view(state.get()) == "stopping";
}

void AwaitOwedMemory(Relocations& relocations, seconds limit, const sigset_t& ends,
                     std::chrono::milliseconds every) {
  const auto deadline = steady_clock::now() + limit;
  auto logged_at = steady_clock::now() - kLogEvery;
  for (;;) {
    const std::string left = LeftText(relocations.Owed());
    if (left.empty()) {
      spdlog::info("shutdown: no other host needs memory of this one");
      return;
    }
    const auto now = steady_clock::now();
    if (now >= deadline) {
      spdlog::error("shutdown: given up after {} s, cause {}", limit.count(), left);
      return;
    }
    if (now - logged_at >= kLogEvery) {
      logged_at = now;
      spdlog::warn("shutdown: waits, cause {}", left);
    }
    sd_notifyf(0, "EXTEND_TIMEOUT_USEC=%llu\nSTATUS=The shutdown waits: %s",
               static_cast<unsigned long long>(std::chrono::microseconds(kMoreTime).count()),
               left.c_str());
    const timespec pause{every.count() / 1000, every.count() % 1000 * 1'000'000};
    if (sigtimedwait(&ends, nullptr, &pause) > 0) {
      spdlog::error("shutdown: ended by a second signal, cause {}", left);
      return;
    }
  }
}

}  // namespace postcopy
