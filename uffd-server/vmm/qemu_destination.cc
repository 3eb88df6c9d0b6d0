// The destination's steps of QemuDriver: open, load and stay paused, start.
#include <utility>

#include "absl/strings/str_format.h"
#include "platform/unix_stream.h"
#include "vmm/qemu_driver.h"
#include "vmm/qemu_inspect.h"
#include "vmm/time_left.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// The monitor's name for the descriptor that the state comes by.
constexpr const char* kIncomingFd = "postcopy-incoming";
constexpr const char* kLateBlockActivate = "late-block-activate";
// QEMU ends when a load has failed, and writes why before.
constexpr milliseconds kEndAfterFailure{500};

}  // namespace

absl::Status QemuDriver::PrepareDestination() {
  absl::StatusOr<GuestState> state = QueryState();
  if (!state.ok()) return state.status();
  if (*state != GuestState::kWaitsForIncoming) {
    return Fail(absl::StatusCode::kFailedPrecondition, "prepare destination",
                "QEMU does not wait for a machine; start it with -S -incoming defer");
  }
  const absl::Status stays_stopped = Ask("stop").status();
  if (!stays_stopped.ok()) return stays_stopped;
  return ApplySettings(PlanDestinationSettings);
}

absl::Status QemuDriver::OpenIncoming() {
  auto ends = MakeStreamPair();
  if (!ends.ok()) {
    return Fail(absl::StatusCode::kInternal, "open device state", ends.error().message);
  }
  const absl::Status passed =
      qmp_->PassDescriptor(kIncomingFd, ends->second.get(), limits_.command);
  if (!passed.ok()) return passed;
  log_.Mark();
  incoming_cursor_ = start_cursor_ = qmp_->EventCursor();
  watched_from_ = incoming_cursor_;
  const absl::Status opened =
      Ask("migrate-incoming", {{"uri", std::string("fd:") + kIncomingFd}}).status();
  if (opened.ok()) incoming_ = std::move(ends->first);
  return opened;
}

absl::Status QemuDriver::StayStopped() {
  const absl::Status stopped = Ask("stop").status();
  return absl::IsUnavailable(stopped)
             ? Fail(absl::StatusCode::kAborted, "keep the machine stopped", "the VMM is gone")
             : stopped;
}

absl::Status QemuDriver::ActivateDisksAtLoad() {
  const Json off = Json::array({{{"capability", kLateBlockActivate}, {"state", false}}});
  return Ask("migrate-set-capabilities", {{"capabilities", off}}).status();
}

absl::Status QemuDriver::LoadDeviceState(std::string_view bytes) {
  if (!incoming_.valid()) {
    return Fail(absl::StatusCode::kFailedPrecondition, "load device state",
                "the VMM was not opened for it");
  }
  const TimePoint deadline = steady_clock::now() + limits_.load;
  const StreamResult sent = SendBytes(incoming_.get(), bytes, -1, limits_.load);
  switch (sent.outcome) {
    case StreamOutcome::kDone:
      break;
    case StreamOutcome::kTimedOut:
      return Fail(absl::StatusCode::kDeadlineExceeded, "load device state",
                  "the VMM did not read all of it within " + DurationText(limits_.load));
    case StreamOutcome::kClosed:
    case StreamOutcome::kFailed:
      return Fail(absl::StatusCode::kAborted, "load device state",
                  "the VMM closed the stream before its end: " + LoadError());
  }
  ShutDown(incoming_.get(), StreamDirection::kSend);
  const absl::Status loaded = WaitForLoad(TimeLeft(deadline));
  if (!loaded.ok()) return loaded;
  incoming_.Reset();
  loaded_ = true;
  return absl::OkStatus();
}

absl::Status QemuDriver::WaitForLoad(milliseconds timeout) {
  const TimePoint deadline = steady_clock::now() + timeout;
  for (;;) {
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(incoming_cursor_, TimeLeft(deadline));
    if (absl::IsDeadlineExceeded(event.status())) {
      return Fail(absl::StatusCode::kDeadlineExceeded, "load device state",
                  "not completed within " + DurationText(limits_.load));
    }
    if (!event.ok()) {
      return Fail(absl::StatusCode::kAborted, "load device state",
                  "the VMM ended during it: " + LoadError());
    }
    // QEMU says so before it says that the load is complete.
    if (event->name == "RESUME") {
      return Fail(absl::StatusCode::kAborted, "load device state",
                  "the machine should be paused after it, and runs");
    }
    if (event->name != "MIGRATION") continue;
    const std::string status = StringAt(event->data, "status");
    if (status == "completed") return absl::OkStatus();
    if (status == "failed") {
      return Fail(absl::StatusCode::kAborted, "load device state",
                  "the VMM reports that it failed: " + LoadError());
    }
  }
}

std::string QemuDriver::LoadError() {
  const TimePoint deadline = steady_clock::now() + kEndAfterFailure;
  uint64_t cursor = incoming_cursor_;
  while (!absl::IsUnavailable(qmp_->NextEvent(cursor, TimeLeft(deadline)).status())) {
    if (steady_clock::now() >= deadline) break;
  }
  return log_.Words();
}

absl::StatusOr<EventTime> QemuDriver::StartGuest() {
  // A machine that this driver has loaded is paused, or somebody has started it since: then the
  // event is behind the load's.
  uint64_t cursor = incoming_cursor_;
  if (!loaded_) {
    absl::StatusOr<std::string> run = RunState();
    if (!run.ok()) return run.status();
    if (*run == "running") return EventTime{};
    if (*run != "paused" && *run != "prelaunch") {
      return Fail(absl::StatusCode::kFailedPrecondition, "start machine",
                  "it is in state " + *run + ", not paused with a complete device state");
    }
    cursor = qmp_->EventCursor();
  }
  const TimePoint deadline = steady_clock::now() + limits_.start;
  const absl::Status sent = Ask("cont").status();
  // Any error that QEMU answers is a refusal.
  if (absl::IsNotFound(sent) || absl::IsUnimplemented(sent)) {
    return absl::FailedPreconditionError(sent.message());
  }
  if (!sent.ok()) return sent;
  for (;;) {
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, TimeLeft(deadline));
    if (absl::IsDeadlineExceeded(event.status())) {
      return Fail(absl::StatusCode::kDeadlineExceeded, "start machine",
                  "it did not run within " + DurationText(limits_.start));
    }
    if (!event.ok()) return event.status();
    if (event->name == "RESUME") return event->time;
  }
}

absl::Status QemuDriver::AwaitStart(milliseconds timeout) {
  const TimePoint deadline = steady_clock::now() + timeout;
  for (;;) {
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(start_cursor_, TimeLeft(deadline));
    if (!event.ok()) return event.status();
    if (event->name == "RESUME") return absl::OkStatus();
  }
}

absl::Status QemuDriver::ExpectPaused() {
  const uint64_t cursor = qmp_->EventCursor();
  absl::StatusOr<std::string> run = RunState();
  if (!run.ok()) return run.status();
  if (*run != "paused" && *run != "prelaunch") {
    return Fail(absl::StatusCode::kFailedPrecondition, "watch machine",
                "it is in state " + *run + ", not paused");
  }
  start_cursor_ = cursor;
  watched_from_ = cursor;
  return absl::OkStatus();
}

std::optional<std::vector<QmpEvent>> QemuDriver::LastEvents(uint64_t cursor) {
  const TimePoint deadline = steady_clock::now() + kLastReports;
  std::vector<QmpEvent> events;
  for (;;) {
    const uint64_t expected = cursor + 1;
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, TimeLeft(deadline));
    if (absl::IsUnavailable(event.status())) return events;
    if (!event.ok() || cursor != expected) return std::nullopt;
    events.push_back(*std::move(event));
  }
}

bool QemuDriver::MayHaveRun() {
  if (!watched_from_.has_value()) return true;
  const auto events = LastEvents(*watched_from_);
  if (!events.has_value()) return true;
  for (const QmpEvent& event : *events) {
    if (event.name == "RESUME") return true;
  }
  return false;
}

absl::Status QemuDriver::EndLoadSettings(milliseconds limit) {
  const auto ask = [&](std::string_view command, Json arguments) {
    return qmp_->Command(command, std::move(arguments), limit);
  };
  if (restore_.has_value()) {
    if (!restore_->capabilities.empty()) {
      const absl::Status set =
          ask("migrate-set-capabilities", {{"capabilities", restore_->capabilities}}).status();
      if (!set.ok()) return set;
    }
    if (!restore_->parameters.empty()) {
      const absl::Status set = ask("migrate-set-parameters", restore_->parameters).status();
      if (!set.ok()) return set;
    }
    restore_.reset();
  }
  absl::StatusOr<Json> capabilities = ask("query-migrate-capabilities", Json::object());
  if (!capabilities.ok()) return capabilities.status();
  Json off = LoadCapabilitiesOn(*capabilities);
  if (off.empty()) return absl::OkStatus();
  for (Json& entry : off) entry["state"] = false;
  const absl::Status set =
      ask("migrate-set-capabilities", {{"capabilities", std::move(off)}}).status();
  if (!set.ok()) return set;
  capabilities = ask("query-migrate-capabilities", Json::object());
  if (!capabilities.ok()) return capabilities.status();
  if (LoadCapabilitiesOn(*capabilities).empty()) return absl::OkStatus();
  return Fail(absl::StatusCode::kInternal, "end the load's settings",
              "QEMU still reports " + LoadCapabilitiesOn(*capabilities).dump());
}

}  // namespace postcopy
