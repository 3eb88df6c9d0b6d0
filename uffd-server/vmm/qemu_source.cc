// The source's steps of QemuDriver: stop and hold, take the state, or go on here after all.
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "platform/unix_stream.h"
#include "vmm/qemu_driver.h"
#include "vmm/qemu_inspect.h"
#include "vmm/run_state.h"
#include "vmm/time_left.h"

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// The monitor's name for the descriptor that the state leaves by.
constexpr const char* kOutgoingFd = "postcopy-outgoing";
// Between two looks at a VM whose change of state no event announces; an event ends it early.
constexpr milliseconds kLookAgain{10};

}  // namespace

absl::StatusOr<bool> QemuDriver::CheckMovable() {
  absl::StatusOr<std::string> run = RunState();
  if (!run.ok()) return run.status();
  const absl::Status movable = CheckRunStateMovable(*run);
  if (!movable.ok()) {
    return Fail(movable.code(), "move machine", std::string(movable.message()));
  }
  return *run == "running";
}

absl::Status QemuDriver::PrepareSource() {
  const absl::Status movable = CheckMovable().status();
  if (!movable.ok()) return movable;
  streamed_ram_limit_bytes_ = StreamedRamLimitNow();
  absl::StatusOr<Json> block = AskIfKnown("query-block");
  if (!block.ok()) return block.status();
  disks_ = DisksWithMedia(*block);
  return Plan(PlanSourceSettings).status();
}

uint64_t QemuDriver::StreamedRamLimitNow() {
  absl::StatusOr<VmmDescription> description = Describe();
  absl::StatusOr<Json> listing = Ask("x-query-ramblock");
  if (!description.ok() || !listing.ok()) return kDefaultStreamedRamBytes;
  return StreamedRamLimit(RawStringAt(*listing, "human-readable-text"), description->ram)
      .value_or(kDefaultStreamedRamBytes);
}

absl::Status QemuDriver::StartOutgoing() {
  auto ends = MakeStreamPair();
  if (!ends.ok()) {
    return Fail(absl::StatusCode::kInternal, "open device state", ends.error().message);
  }
  // The reader comes first. If `migrate` is carried out later than anyone waits for it, it finds
  // the stream shut and fails, and the machine never stops.
  log_.Mark();
  outgoing_ = std::make_unique<StateStream>(std::move(ends->first), kMaxDeviceStateBytes);
  const absl::Status passed =
      qmp_->PassDescriptor(kOutgoingFd, ends->second.get(), limits_.command);
  if (!passed.ok()) return passed;
  return Ask("migrate", {{"uri", std::string("fd:") + kOutgoingFd}}).status();
}

absl::StatusOr<VmmDriver::Held> QemuDriver::StopAndHold() {
  left_stopped_.reset();
  const absl::StatusOr<bool> running = CheckMovable();
  if (!running.ok()) return running.status();
  const absl::Status set = ApplySourceSettings();
  if (!set.ok()) return set;
  // Taken after the look: a STOP from now on is the migration's. (An operator's pause in these
  // milliseconds can't be told from it; the machine would run at the destination.)
  const uint64_t cursor = start_cursor_ = qmp_->EventCursor();
  watched_from_ = cursor;
  absl::Status started = StartOutgoing();
  absl::StatusOr<Held> held = started.ok() ? WaitForSwitchover(cursor) : started;
  if (held.ok()) return held;

  outgoing_.reset();
  const TimePoint deadline = steady_clock::now() + limits_.resume;
  absl::Status undone = EndMigration(deadline);
  if (undone.ok()) undone = BringTo(*running, deadline);
  if (!undone.ok()) left_stopped_ = *running;
  const absl::Status restored = RestoreSettings();
  if (undone.ok()) undone = restored;
  if (undone.ok()) return held;
  return absl::Status(held.status().code(), std::string(held.status().message()) +
                                                "; undoing that: " +
                                                std::string(undone.message()));
}

absl::StatusOr<VmmDriver::Held> QemuDriver::WaitForSwitchover(uint64_t cursor) {
  const TimePoint deadline = steady_clock::now() + limits_.hold;
  Held held;
  for (;;) {
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, TimeLeft(deadline));
    if (absl::IsDeadlineExceeded(event.status())) {
      return Fail(absl::StatusCode::kDeadlineExceeded, "hold machine",
                  "pre-switchover not reached within " + DurationText(limits_.hold) +
                      WhatIoItWaitsFor());
    }
    if (!event.ok()) return event.status();
    if (event->name == "STOP") held = {.was_running = true, .stopped = event->time};
    if (event->name != "MIGRATION") continue;
    const std::string status = StringAt(event->data, "status");
    if (status == "pre-switchover") return held;
    if (status == "active") {
      // As long as the guest runs: all that would travel is known.
      const absl::Status ram = CheckRamStaysOut("hold machine").status();
      if (!ram.ok()) return ram;
      continue;
    }
    if (!MigrationUnderWay(status)) {
      return Fail(absl::StatusCode::kFailedPrecondition, "hold machine",
                  "the migration ended before pre-switchover (" + status + "): " +
                      MigrationError());
    }
  }
}

absl::StatusOr<uint64_t> QemuDriver::CheckRamStaysOut(const std::string& operation) {
  absl::StatusOr<Json> migrate = Ask("query-migrate");
  if (!migrate.ok()) return migrate.status();
  const absl::Status ram = CheckStreamedRam(*migrate, streamed_ram_limit_bytes_);
  if (!ram.ok()) return Fail(ram.code(), operation, std::string(ram.message()));
  return UnsignedAt(MemberAt(*migrate, "ram"), "transferred");
}

std::string QemuDriver::WhatIoItWaitsFor() {
  if (disks_.empty()) return "";
  return absl::StrFormat("; a machine stops only when the I/O of its disks is complete: %s",
                         absl::StrJoin(disks_, ", "));
}

std::string QemuDriver::MigrationError() {
  absl::StatusOr<Json> migrate = Ask("query-migrate");
  std::string text = migrate.ok() ? StringAt(*migrate, "error-desc") : "";
  return text.empty() ? log_.Words() : text;
}

absl::StatusOr<DeviceState> QemuDriver::TakeDeviceState() {
  if (outgoing_ == nullptr) {
    return Fail(absl::StatusCode::kFailedPrecondition, "take device state",
                "this driver holds no machine");
  }
  const TimePoint deadline = steady_clock::now() + limits_.take;
  const uint64_t cursor = qmp_->EventCursor();
  const absl::Status sent = Ask("migrate-continue", {{"state", "pre-switchover"}}).status();
  if (!sent.ok()) return sent;
  const absl::Status completed = WaitForCompletion(cursor, deadline);
  if (!completed.ok()) return completed;
  // While the rest of the stream is being read.
  const absl::StatusOr<uint64_t> ram_bytes = CheckRamStaysOut("take device state");
  if (!ram_bytes.ok()) return ram_bytes.status();
  // QEMU closes its end after the machine has reached "postmigrate": the end of the stream also
  // says that nothing will make it run by itself.
  absl::StatusOr<std::string> bytes = outgoing_->TakeAll(TimeLeft(deadline));
  if (!bytes.ok()) {
    return Fail(bytes.status().code(), "take device state",
                std::string(bytes.status().message()));
  }
  outgoing_.reset();
  return DeviceState{.bytes = *std::move(bytes), .ram_bytes_sent = *ram_bytes};
}

absl::Status QemuDriver::WaitForCompletion(uint64_t cursor, TimePoint deadline) {
  for (;;) {
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, TimeLeft(deadline));
    if (absl::IsDeadlineExceeded(event.status())) {
      return Fail(absl::StatusCode::kDeadlineExceeded, "take device state",
                  "not completed within " + DurationText(limits_.take));
    }
    if (!event.ok()) return event.status();
    if (event->name != "MIGRATION") continue;
    const std::string status = StringAt(event->data, "status");
    if (status == "completed") return absl::OkStatus();
    if (!MigrationUnderWay(status)) {
      return Fail(absl::StatusCode::kFailedPrecondition, "take device state",
                  "the migration ended (" + status + "): " + MigrationError());
    }
  }
}

absl::Status QemuDriver::ResumeSource(bool was_running) {
  const TimePoint deadline = steady_clock::now() + limits_.resume;
  absl::Status resumed = EndMigration(deadline);
  if (resumed.ok()) resumed = BringTo(was_running, deadline);
  outgoing_.reset();
  // Where another driver object has set something, it is not known what was set before.
  const absl::Status restored =
      set_here_ ? RestoreSettings() : ApplySettings(PlanNoRelocation);
  if (!set_here_) restore_.reset();  // nothing is to be put back
  if (!resumed.ok()) return resumed;
  if (was_running) {
    // The destination may have announced the guest's addresses already: take them back. The guest's
    // own traffic does so too, hence no failure.
    (void)AskIfKnown("announce-self",
                     {{"initial", 50}, {"max", 550}, {"rounds", 5}, {"step", 100}});
  }
  return restored;
}

// Cancels a migration that is under way and waits until none is.
absl::Status QemuDriver::EndMigration(TimePoint deadline) {
  bool cancelled = false;
  for (;;) {
    uint64_t cursor = qmp_->EventCursor();
    absl::StatusOr<Json> migrate = Ask("query-migrate");
    if (!migrate.ok()) return migrate.status();
    const std::string status = StringAt(*migrate, "status");
    if (!MigrationUnderWay(status)) return absl::OkStatus();
    if (!cancelled && status != "cancelling") {
      absl::StatusOr<std::string> run = RunState();
      if (!run.ok()) return run.status();
      if (*run == "inmigrate") {
        return Fail(absl::StatusCode::kFailedPrecondition, "resume machine",
                    "it is a destination that loads a machine");
      }
      const absl::Status sent = Ask("migrate_cancel").status();
      if (!sent.ok()) return sent;
      cancelled = true;
      continue;
    }
    if (steady_clock::now() >= deadline) {
      return Fail(absl::StatusCode::kDeadlineExceeded, "resume machine",
                  "its migration did not end within " + DurationText(limits_.resume) +
                      ", it is in state " + status);
    }
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, kLookAgain);
    if (absl::IsUnavailable(event.status())) return event.status();
  }
}

// Looks at the VM, and starts or stops it if need be, until it is as it should be, or has come to a
// stop of its own.
absl::Status QemuDriver::BringTo(bool running, TimePoint deadline) {
  for (;;) {
    uint64_t cursor = qmp_->EventCursor();
    absl::StatusOr<std::string> run = RunState();
    if (!run.ok()) return run.status();
    if (*run == "inmigrate") {
      return Fail(absl::StatusCode::kFailedPrecondition, "resume machine",
                  "it is a destination that waits for a machine");
    }
    // "finish-migrate" also counts as stopped, but is about to become something else.
    if ((*run == "running") == running && *run != "finish-migrate") return absl::OkStatus();
    if (running && StoppedByItself(*run)) return absl::OkStatus();
    absl::Status sent = absl::OkStatus();
    if (*run != "finish-migrate") sent = Ask(running ? "cont" : "stop").status();
    // Refused while QEMU is still finishing: look again.
    if (!sent.ok() && !absl::IsFailedPrecondition(sent)) return sent;
    if (steady_clock::now() >= deadline) {
      if (!sent.ok()) return sent;
      return Fail(absl::StatusCode::kDeadlineExceeded, "resume machine",
                  absl::StrFormat("it is in state %s after %s", *run,
                                  DurationText(limits_.resume)));
    }
    absl::StatusOr<QmpEvent> event = qmp_->NextEvent(cursor, kLookAgain);
    if (absl::IsUnavailable(event.status())) return event.status();
  }
}

}  // namespace postcopy
