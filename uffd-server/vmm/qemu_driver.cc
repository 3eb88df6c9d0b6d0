#include "vmm/qemu_driver.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "vmm/guest_states.h"
#include "vmm/qemu_inspect.h"
#include "vmm/time_left.h"

namespace postcopy {
namespace {

bool IsRefusal(const absl::Status& status) {
  return absl::IsFailedPrecondition(status) || absl::IsNotFound(status) ||
         absl::IsUnimplemented(status);
}

// From the data of a SHUTDOWN event, which QEMU sends whenever it ends by itself.
std::string ExitOf(const Json& data) {
  const std::string reason = StringAt(data, "reason");
  if (reason == "guest-shutdown") return "the guest powered off";
  if (reason == "guest-reset") return "the guest rebooted and its VMM was started with -no-reboot";
  // By the monitor, or by a watchdog.
  if (reason == "host-qmp-system-reset" || reason == "subsystem-reset") {
    return "the machine was reset and its VMM was started with -no-reboot";
  }
  if (reason == "guest-panic") return "the guest panicked and its VMM shut down";
  if (reason == "host-qmp-quit") return "its VMM was told to quit";
  if (reason == "host-signal") return "its VMM was told to end by a signal";
  if (reason == "host-ui") return "its VMM's window was closed";
  return absl::StrFormat("its VMM shut down (%s)", reason.empty() ? "no reason given" : reason);
}

}  // namespace

absl::StatusOr<std::unique_ptr<QemuDriver>> QemuDriver::Connect(const std::string& qmp_path, int pid,
                                                                const QemuLimits& limits) {
  if (qmp_path.empty()) return NoMonitor();
  absl::StatusOr<std::unique_ptr<QmpClient>> qmp =
      QmpClient::Connect(qmp_path, pid, limits.connect);
  if (!qmp.ok()) return qmp.status();
  return std::make_unique<QemuDriver>(*std::move(qmp), limits);
}

QemuDriver::QemuDriver(std::unique_ptr<QmpClient> qmp, const QemuLimits& limits)
    : qmp_(std::move(qmp)), limits_(limits), log_(qmp_->peer_pid()) {}

absl::StatusOr<Json> QemuDriver::Ask(std::string_view command, Json arguments) {
  return qmp_->Command(command, std::move(arguments), limits_.command);
}

absl::StatusOr<Json> QemuDriver::AskIfKnown(std::string_view command, Json arguments) {
  absl::StatusOr<Json> answer = Ask(command, std::move(arguments));
  if (!answer.ok() && IsRefusal(answer.status())) return absl::StatusOr<Json>(Json());
  return answer;
}

absl::StatusOr<std::string> QemuDriver::RunState() {
  absl::StatusOr<Json> status = Ask("query-status");
  if (!status.ok()) return status.status();
  return StringAt(*status, "status");
}

absl::Status QemuDriver::Fail(absl::StatusCode code, std::string_view operation,
                              const std::string& cause) const {
  return absl::Status(code, absl::StrFormat("%s of %s: %s", operation, qmp_->name(), cause));
}

absl::StatusOr<QemuDriver::StateAnswers> QemuDriver::AskState(std::chrono::milliseconds limit) {
  // This order: a machine seen "finish-migrate" first could be "completed" by the second answer.
  absl::StatusOr<Json> migrate = qmp_->Command("query-migrate", Json::object(), limit);
  if (!migrate.ok()) return migrate.status();
  absl::StatusOr<Json> status = qmp_->Command("query-status", Json::object(), limit);
  if (!status.ok()) return status.status();
  return StateAnswers{*std::move(status), *std::move(migrate)};
}

absl::StatusOr<GuestState> QemuDriver::QueryState() {
  const auto answers = AskState(limits_.command);
  if (!answers.ok()) return answers.status();
  return GuestStateOf(answers->status, answers->migrate);
}

absl::StatusOr<std::string> QemuDriver::QueryStateText(std::chrono::milliseconds limit) {
  // Repeated queries would pile up in the monitor of a silent VMM and delay the next command.
  if (qmp_->OwesAnAnswer()) {
    return Fail(absl::StatusCode::kDeadlineExceeded, "query the guest's state",
                "an earlier command has not been answered yet");
  }
  const auto answers = AskState(limit);
  if (!answers.ok()) return answers.status();
  return StateText(answers->status, answers->migrate);
}

absl::Status QemuDriver::SendSettings(const MigrationSettings& settings) {
  if (!settings.capabilities.empty()) {
    const absl::Status set =
        Ask("migrate-set-capabilities", {{"capabilities", settings.capabilities}}).status();
    if (!set.ok()) return set;
  }
  if (settings.parameters.empty()) return absl::OkStatus();
  return Ask("migrate-set-parameters", settings.parameters).status();
}

absl::StatusOr<SettingsPlan> QemuDriver::Plan(SettingsPlanner planner) {
  absl::StatusOr<Json> capabilities = Ask("query-migrate-capabilities");
  if (!capabilities.ok()) return capabilities.status();
  absl::StatusOr<Json> parameters = Ask("query-migrate-parameters");
  if (!parameters.ok()) return parameters.status();
  absl::StatusOr<SettingsPlan> plan = planner(*capabilities, *parameters);
  if (plan.ok()) return plan;
  return Fail(plan.status().code(), "set migration capabilities",
              std::string(plan.status().message()));
}

absl::Status QemuDriver::ApplySettings(SettingsPlanner planner) {
  // Plans from what was set before this driver, not from what it set for an earlier step.
  const absl::Status restored_before = RestoreSettings();
  if (!restored_before.ok()) return restored_before;
  absl::StatusOr<SettingsPlan> plan = Plan(planner);
  if (!plan.ok()) return plan.status();
  restore_ = plan->restore;
  const absl::Status applied = SendSettings(plan->apply);
  if (applied.ok()) return applied;
  const absl::Status restored = RestoreSettings();
  if (restored.ok()) return applied;
  return absl::Status(applied.code(), std::string(applied.message()) + "; undoing that: " +
                                          std::string(restored.message()));
}

absl::Status QemuDriver::RestoreSettings() {
  while (!emptied_at_end_.empty()) {
    const absl::Status emptied = SetEmptiedAtEnd(emptied_at_end_.back(), true);
    if (!emptied.ok()) return emptied;
    emptied_at_end_.pop_back();
  }
  if (!restore_.has_value()) return absl::OkStatus();
  const absl::Status restored = SendSettings(*restore_);
  if (restored.ok()) restore_.reset();
  return restored;
}

absl::Status QemuDriver::Quit() {
  const absl::Status quit = Ask("quit").status();
  // QEMU may be gone before its answer is.
  return absl::IsUnavailable(quit) ? absl::OkStatus() : quit;
}

std::optional<std::string> QemuDriver::OrderlyExit() {
  const TimePoint deadline = std::chrono::steady_clock::now() + kLastReports;
  std::optional<std::string> exit;
  for (uint64_t cursor = 0;;) {
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, TimeLeft(deadline));
    if (!event.ok()) return exit;
    if (event->name == "SHUTDOWN") exit = ExitOf(event->data);
    // With -no-shutdown it lives on, and may be reset and started again.
    if (event->name == "RESUME") exit.reset();
  }
}

}  // namespace postcopy
