#include "cli/commands.h"

#include <algorithm>
#include <cstdio>
#include <vector>

#include "absl/strings/str_cat.h"
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

// A message that is not the last one.
void PrintProgressLine(const v1::Progress& progress) {
  PrintJsonLine(WithFigures(progress, "", progress.error()));
}

std::string SessionText(const v1::Vm& vm) {
  if (vm.session().empty()) return "-";
  return absl::StrFormat("%s (%s)", StateWords(vm.state()), vm.role());
}

std::string OwedText(const v1::Owed& owed) {
  const std::string left =
      owed.has_remaining_bytes() ? ", " + MemoryText(owed.remaining_bytes()) + " are left" : "";
  const std::string peer = owed.peer().empty() ? "another host" : owed.peer();
  return absl::StrCat("Leave this host on: ", peer, " still needs memory of VM ", owed.vm(), left,
                      " (", StateWords(owed.state()), ")");
}

// The end of a command whose answer has no more than `body` besides the head.
ExitCode Done(const Invocation& invocation, const ordered_json& body, const std::string& text) {
  if (invocation.json) {
    PrintJson(Joined(Head(invocation.vm, OutcomeWord(ExitCode::kOk), nullptr, ""), body));
  } else {
    absl::PrintF("%s: %s\n", invocation.vm, text);
  }
  return ExitCode::kOk;
}

ExitCode Done(const Invocation& invocation, const absl::Status& status, const char* text) {
  return status.ok() ? Done(invocation, ordered_json::object(), text) : Fail(invocation, status);
}

ExitCode Reported(const Invocation& invocation, const absl::StatusOr<std::string>& report) {
  if (!report.ok()) return Fail(invocation, report.status());
  return Done(invocation, {{"report", *report}}, *report);
}

}  // namespace

void Complain(const Invocation& invocation, const std::string& message) {
  const std::string vm = invocation.vm.empty() ? "" : " " + invocation.vm;
  absl::FPrintF(stderr, "postcopyctl %s%s: %s\n", invocation.command, vm, message);
}

std::string MessageOf(const Invocation& invocation, const absl::Status& status) {
  std::string message(status.message());
  // The daemon itself, not one that it has tried to reach.
  if (ForStatus(status) == ExitCode::kUnreachable &&
      message.starts_with("daemon " + invocation.daemon + ": ")) {
    absl::StrAppend(&message, "; the address is of ", invocation.daemon_chosen_by,
                    "; is uffd-server running there, is its `listen` this address? Another one: "
                    "--daemon or POSTCOPY_DAEMON");
  }
  return message;
}

ExitCode Fail(const Invocation& invocation, const absl::Status& status) {
  const ExitCode code = ForStatus(status);
  const std::string message = MessageOf(invocation, status);
  Complain(invocation, message);
  if (invocation.json) {
    PrintJson(Head(invocation.vm, OutcomeWord(code), nullptr, message));
  }
  return code;
}

ExitCode List(const Invocation& invocation) {
  const auto list = RelocationClient(invocation.daemon).List();
  if (!list.ok()) return Fail(invocation, list.status());
  if (invocation.json) {
    PrintJson(Joined(Head("", OutcomeWord(ExitCode::kOk), nullptr, ""), ToJson(*list)));
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> rows{{"NAME", "PID", "GUEST", "RAM", "SESSION", "PROBLEM"}};
  for (const v1::Vm& vm : list->vms()) {
    rows.push_back({vm.name(), std::to_string(vm.pid()), OrDash(vm.guest_state()),
                    MemoryText(vm.ram_bytes()), SessionText(vm), OrDash(vm.problem())});
  }
  PrintTable(rows);
  for (const v1::Owed& owed : list->owed()) absl::PrintF("%s\n", OwedText(owed));
  return ExitCode::kOk;
}

ExitCode Stats(const Invocation& invocation) {
  const auto progress = RelocationClient(invocation.daemon).Stats(invocation.vm);
  if (!progress.ok()) return Fail(invocation, progress.status());
  if (invocation.json) {
    PrintJson(WithFigures(*progress, OutcomeWord(ExitCode::kOk), progress->error()));
    return ExitCode::kOk;
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, text] : FigureRows(*progress)) rows.push_back({name, text});
  PrintTable(rows);
  return ExitCode::kOk;
}

ExitCode Watch(const Invocation& invocation) {
  RelocationClient client(invocation.daemon);
  const PrinterOptions printer = PrinterFor(invocation.json);
  Watching watching(client, invocation.vm, printer, invocation.json ? PrintProgressLine : nullptr);
  const absl::Status status = watching.Join();
  const v1::Progress last = watching.last();
  ExitCode code = ForEndState(last.state());
  std::string error = last.error();
  if (!status.ok()) {
    error = MessageOf(invocation, status);
    Complain(invocation, error);
    if (!HasSwitched(last.state())) code = ForStatus(status);
  }
  if (invocation.json) {
    v1::Progress end = last;
    end.set_vm(invocation.vm);
    PrintJsonLine(
        WithFigures(end, code == ExitCode::kOk ? "committed" : OutcomeWord(code), error));
  } else if (!last.session().empty()) {
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
  return Reported(invocation,
                  RelocationClient(invocation.daemon).SourceLost(invocation.vm, action));
}

ExitCode DestinationLost(const Invocation& invocation) {
  return Reported(invocation, RelocationClient(invocation.daemon).DestinationLost(invocation.vm));
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
    const ordered_json body = ToJson(*answer);
    PrintJson(Joined(Head(invocation.vm, OutcomeWord(ExitCode::kOk), body["state"], ""), body));
    return ExitCode::kOk;
  }
  absl::PrintF("%s: %s, owner: %s\n%s\n", invocation.vm, StateWords(answer->state()),
               OrDash(answer->owner()), answer->report());
  return ExitCode::kOk;
}

}  // namespace postcopy
