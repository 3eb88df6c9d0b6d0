// The destination's steps of QemuDriver: open, load and stay paused, start.
#include <utility>

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
  incoming_cursor_ = start_cursor_ = qmp_->EventCursor();
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
                  "the VMM closed the stream before its end; its own log says why");
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
                  "the VMM ended during it; its own log says why");
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
                  "the VMM reports that it failed; its own log says why");
    }
  }
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

}  // namespace postcopy
