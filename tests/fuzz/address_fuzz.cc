// What an operator may type: addresses, session ids (also in another daemon's calls), and faults.
#include <cstdlib>
#include <string>

#include "core/address.h"
#include "core/session_id.h"
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

// What is accepted comes back as it was, is accepted again, and what only this host can reach stays so.
void CheckAddress(const std::string& text) {
  for (const bool listens : {false, true}) {
    const AddressForm form{
        .default_port = kControlPort, .may_be_unix = listens, .may_listen = listens};
    const auto address = Address::Parse(text, form);
    if (!address.ok()) continue;
    const std::string once = address->ToString();
    const auto again = Address::Parse(
        once, {.default_port = {}, .may_be_unix = listens, .may_listen = listens});
    Require(again.ok() && again->ToString() == once);
    Require(again->IsLocalOnly() == address->IsLocalOnly());
    Require(listens || (!address->IsWildcard() && address->port() != 0));
  }
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
