#include "cli/commands.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/strings/str_format.h"
#include "cli/json_output.h"
#include "cli/progress_view.h"
#include "cli/watching.h"
#include "control/relocation_client.h"

namespace postcopy {
namespace {

using nlohmann::ordered_json;

// As wide columns as their widest cells, two blanks apart; the last one is not padded.
void PrintTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      line += row[i] + std::string(widths[i] + 2 - row[i].size(), ' ');
    }
    absl::PrintF("%s%s\n", line, row.back());
  }
}

std::string OrDash(const std::string& text) { return text.empty() ? "-" : text; }

std::string SessionText(const v1::Vm& vm) {
  if (vm.session().empty()) return "-";
  return absl::StrFormat("%s (%s)", StateWords(vm.state()), vm.role());
}

// The end of a command that has nothing to say but that it was done.
ExitCode Done(const Invocation& invocation, const absl::Status& status, const char* what) {
  if (!status.ok()) return Fail(invocation, status);
  if (invocation.json) {
    PrintJson({{"vm", invocation.vm}, {"outcome", OutcomeWord(ExitCode::kOk)}});
  } else {
    absl::PrintF("%s: %s\n", invocation.vm, what);
  }
  return ExitCode::kOk;
}

}  // namespace

void Complain(const Invocation& invocation, const std::string& message) {
  const std::string vm = invocation.vm.empty() ? "" : " " + invocation.vm;
  absl::FPrintF(stderr, "postcopyctl %s%s: %s\n", invocation.command, vm, message);
}

ExitCode Fail(const Invocation& invocation, const absl::Status& status) {
  const ExitCode code = ForStatus(status);
  const std::string message(status.message());
  Complain(invocation, message);
  if (invocation.json) {
    PrintJson({{"vm", invocation.vm}, {"outcome", OutcomeWord(code)}, {"error", message}});
  }
  return code;
}

ExitCode List(const Invocation& invocation) {
  const auto list = RelocationClient(invocation.daemon).List();
  if (!list.ok()) return Fail(invocation, list.status());
  if (invocation.json) {
    PrintJson(ToJson(*list));
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> rows{{"NAME", "PID", "GUEST", "RAM", "SESSION", "PROBLEM"}};
  for (const v1::Vm& vm : list->vms()) {
    rows.push_back({vm.name(), std::to_string(vm.pid()), OrDash(vm.guest_state()),
                    MemoryText(vm.ram_bytes()), SessionText(vm), OrDash(vm.problem())});
  }
  PrintTable(rows);
  return ExitCode::kOk;
}

ExitCode Stats(const Invocation& invocation) {
  const auto progress = RelocationClient(invocation.daemon).Stats(invocation.vm);
  if (!progress.ok()) return Fail(invocation, progress.status());
  const ordered_json json = ToJson(*progress);
  if (invocation.json) {
    PrintJson(json);
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, value] : json.items()) {
    rows.push_back({name, value.is_string() ? value.get<std::string>() : value.dump()});
  }
  PrintTable(rows);
  return ExitCode::kOk;
}

ExitCode Watch(const Invocation& invocation) {
  RelocationClient client(invocation.daemon);
  Watching watching(client, invocation.vm, PrinterFor(invocation.json));
  const absl::Status status = watching.Join();
  const v1::Progress last = watching.last();
  if (!status.ok() && last.session().empty()) return Fail(invocation, status);
  ExitCode code = ForEndState(last.state());
  if (!status.ok()) {
    Complain(invocation, std::string(status.message()));
    if (!HasSwitched(last.state())) code = ForStatus(status);
  }
  if (invocation.json) {
    ordered_json json = ToJson(last);
    json["outcome"] = code == ExitCode::kOk ? "committed" : OutcomeWord(code);
    PrintJson(json);
  } else {
    absl::PrintF("%s\n", watching.Summary(last.elapsed_ms()));
  }
  return code;
}

ExitCode Hurry(const Invocation& invocation) {
  return Done(invocation, RelocationClient(invocation.daemon).Hurry(invocation.vm),
              "its memory comes without limit from now on; `postcopyctl watch` says when the source "
              "will be free");
}

ExitCode SourceLost(const Invocation& invocation, v1::SourceLostAction action) {
  const auto report = RelocationClient(invocation.daemon).SourceLost(invocation.vm, action);
  if (!report.ok()) return Fail(invocation, report.status());
  if (invocation.json) {
    PrintJson(
        {{"vm", invocation.vm}, {"outcome", OutcomeWord(ExitCode::kOk)}, {"report", *report}});
  } else {
    absl::PrintF("%s: %s\n", invocation.vm, *report);
  }
  return ExitCode::kOk;
}

ExitCode Cancel(const Invocation& invocation) {
  return Done(invocation, RelocationClient(invocation.daemon).Cancel(invocation.vm),
              "cancelled, goes on where it was");
}

ExitCode Release(const Invocation& invocation) {
  return Done(invocation, RelocationClient(invocation.daemon).Release(invocation.vm),
              "released, its VMM here may end");
}

ExitCode Recover(const Invocation& invocation) {
  const auto answer = RelocationClient(invocation.daemon).Recover(invocation.vm);
  if (!answer.ok()) return Fail(invocation, answer.status());
  if (invocation.json) {
    PrintJson(ToJson(*answer));
    return ExitCode::kOk;
  }
  absl::PrintF("%s: %s, owner: %s\n%s\n", invocation.vm, StateWords(answer->state()),
               OrDash(answer->owner()), answer->report());
  return ExitCode::kOk;
}

}  // namespace postcopy
