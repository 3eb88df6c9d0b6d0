// What an operator may type: addresses, session ids (also in another daemon's calls), and faults.
#include <cstdlib>
#include <string>

#include "control/address.h"
#include "core/session_id.h"
#include "platform/tcp_socket.h"
#include "relocation/fault_plan.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckSessionId(const std::string& text) {
  const auto id = SessionId::Parse(text);
  if (id.has_value()) Require(id->ToString() == text);
}

// An address without a port gets one, once. One that passes for local is local to the page server
// too.
void CheckAddress(const std::string& text) {
  if (text == "unix" || text == "unix-abstract") return;  // with a port they are paths
  const std::string address = WithDefaultPort(text, kControlPort);
  Require(WithDefaultPort(address, 1) == address || !ParseSocketAddress(address).ok());
  Require(IsLocalOnly(address) == IsLocalOnly(text));
  const auto parsed = ParseSocketAddress(address);
  if (!parsed.ok() || address.starts_with("unix")) return;
  const std::string moved = WithPort(address, 1);
  const auto again = ParseSocketAddress(moved);
  Require(again.ok() && again->host == parsed->host && again->port == "1");
  if (IsLocalOnly(address)) Require(IsLoopback(*again));
}

// One fault.
void CheckFault(const std::string& text) {
  const auto plan = FaultPlan::Parse({text}, "");
  Require(plan.ok() || absl::IsInvalidArgument(plan.status()));
  if (!plan.ok()) return;
  Require(plan->corrupt_after_pages().has_value() != text.starts_with("hold-at="));
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  postcopy::CheckSessionId(text);
  postcopy::CheckAddress(text);
  postcopy::CheckFault(text);
  return 0;
}
