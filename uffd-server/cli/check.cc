// postcopyctl check: all that stands in the way of a relocation, at once.
#include "absl/strings/str_format.h"
#include "cli/commands.h"
#include "cli/json_output.h"
#include "control/relocation_client.h"

namespace postcopy {

ExitCode Check(const Invocation& invocation, const RelocateOptions& options) {
  v1::CheckRequest request;
  request.set_vm(invocation.vm);
  request.set_destination(options.destination);
  request.set_destination_vm(options.destination_vm);
  const auto answer = RelocationClient(invocation.daemon).Check(request);
  if (!answer.ok()) return Fail(invocation, answer.status());
  const bool fits = answer->findings().empty();
  const ExitCode code = fits ? ExitCode::kOk : ExitCode::kMisfit;
  if (invocation.json) {
    PrintJson(Joined(Head(invocation.vm, OutcomeWord(code), nullptr, ""), ToJson(*answer)));
  } else if (fits) {
    absl::PrintF("%s: can be relocated to %s\n", invocation.vm, options.destination);
  } else {
    for (const v1::Finding& finding : answer->findings()) {
      absl::PrintF("%s: %s\n", finding.side(), finding.message());
    }
  }
  return code;
}

}  // namespace postcopy
