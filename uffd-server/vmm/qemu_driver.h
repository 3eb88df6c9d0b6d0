// VmmDriver for QEMU 7.2 to 10 over QMP.
//
// The device state goes through a socket pair whose other end QEMU gets by getfd: a confined QEMU
// needs no path, and an incoming one does nothing until bytes arrive. Split by side:
// qemu_source.cc, qemu_destination.cc; what both use is in qemu_driver.cc and qemu_questions.cc. What
// the source changes in QEMU's settings and puts back is in qemu_source_settings.cc.
//
// Traps of QEMU that this class knows:
// - `cont` to an incoming QEMU makes it run by itself at the end of the load. `stop` takes that
//   back, and also what a missing -S does; sent at PrepareDestination() and again before the load.
// - A machine that was paused before its migration was cancelled stays in "postmigrate" up to
//   QEMU 8, which refuses to migrate it again before it has run. Describe() says so.
// - After `failed` QEMU starts a machine that ran before by itself, a little later: look and wait.
// - `cont` is refused while a migration is being finished: try again until it is.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/unique_fd.h"
#include "vmm/machine_print.h"
#include "vmm/process_log.h"
#include "vmm/qemu_inspect.h"
#include "vmm/qemu_settings.h"
#include "vmm/qmp_client.h"
#include "vmm/state_stream.h"
#include "vmm/vmm_driver.h"

namespace postcopy {

// How long each step may take.
struct QemuLimits {
  std::chrono::milliseconds connect{5'000};
  std::chrono::milliseconds command{5'000};  // one QMP answer
  std::chrono::milliseconds hold{10'000};    // migrate to pre-switchover
  std::chrono::milliseconds take{10'000};    // pre-switchover to the end of the state
  std::chrono::milliseconds load{10'000};    // the load waits for pages of the guest's RAM
  std::chrono::milliseconds start{10'000};   // cont to RESUME
  std::chrono::milliseconds resume{20'000};  // cancel to running again
};

class QemuDriver final : public VmmDriver {
 public:
  // More device state than this is refused: it is held in memory. QEMU's is some 0.3 MB.
  static constexpr size_t kMaxDeviceStateBytes = size_t{256} << 20;
  // RAM that may travel when QEMU can't list its blocks: a VGA's, the firmware's.
  static constexpr uint64_t kDefaultStreamedRamBytes = uint64_t{64} << 20;

  // Connects to the monitor socket of the QEMU that is process `pid` and keeps the connection: QEMU
  // serves one client a monitor. kFailedPrecondition: it has told no socket, or another process
  // listens there.
  static absl::StatusOr<std::unique_ptr<QemuDriver>> Connect(const std::string& qmp_path, int pid,
                                                             const QemuLimits& limits = {});
  QemuDriver(std::unique_ptr<QmpClient> qmp, const QemuLimits& limits);

  absl::StatusOr<VmmDescription> Describe() override;
  absl::StatusOr<MachinePrint> Print() override;
  absl::StatusOr<GuestState> QueryState() override;
  absl::StatusOr<std::string> QueryStateText(std::chrono::milliseconds limit) override;

  absl::StatusOr<bool> CheckMovable() override;
  absl::Status PrepareSource() override;
  absl::StatusOr<Held> StopAndHold() override;
  std::optional<bool> LeftStopped() const override { return left_stopped_; }
  absl::StatusOr<DeviceState> TakeDeviceState() override;
  absl::Status ResumeSource(bool was_running) override;
  absl::Status RestoreSettings() override;
  bool EmptiesMemoryAtEnd() const override { return !emptied_at_end_.empty(); }
  void AdoptEmptiedAtEnd(std::vector<std::string> backends) override {
    emptied_at_end_ = std::move(backends);
  }
  absl::Status Quit() override;
  std::optional<std::string> OrderlyExit() override;

  absl::Status PrepareDestination() override;
  absl::Status OpenIncoming() override;
  absl::Status StayStopped() override;
  absl::Status ActivateDisksAtLoad() override;
  absl::Status LoadDeviceState(std::string_view bytes) override;
  absl::StatusOr<EventTime> StartGuest() override;
  absl::Status ExpectPaused() override;
  bool MayHaveRun() override;
  absl::Status EndLoadSettings(std::chrono::milliseconds limit) override;
  absl::Status AwaitStart(std::chrono::milliseconds timeout) override;

 private:
  // What a process that has ended has said is in its socket by then.
  static constexpr std::chrono::milliseconds kLastReports{1'000};

  using TimePoint = std::chrono::steady_clock::time_point;

  struct StateAnswers {
    Json status;   // of query-status
    Json migrate;  // of query-migrate
  };

  // Both sides.
  absl::StatusOr<StateAnswers> AskState(std::chrono::milliseconds limit);
  absl::StatusOr<Json> Ask(std::string_view command, Json arguments = Json::object());
  // The same for a question that is not vital: null where QEMU refuses it.
  absl::StatusOr<Json> AskIfKnown(std::string_view command, Json arguments = Json::object());
  // The parts of Describe() that need more than one question.
  absl::Status AskForMemory(QemuAnswers& answers);
  absl::Status AskForMemoryUsers(const std::string& folder, const Json& devices,
                                 QemuAnswers& answers);
  // What cannot change while QEMU lives: properties of the machine and of its CPU model.
  absl::StatusOr<PrintAnswers> AskForFixedAnswers(const PrintAnswers& known);
  absl::Status AskForProperty(const std::string& path, const std::string& name, Json& into);
  absl::StatusOr<std::string> RunState();
  using SettingsPlanner = absl::StatusOr<SettingsPlan> (*)(const Json& capabilities,
                                                           const Json& parameters);
  // What to send, and what undoes it.
  absl::StatusOr<SettingsPlan> Plan(SettingsPlanner planner);
  absl::Status ApplySettings(SettingsPlanner planner);
  absl::Status SendSettings(const MigrationSettings& settings);
  absl::Status Fail(absl::StatusCode code, std::string_view operation,
                    const std::string& cause) const;

  // Source.
  absl::Status ApplySourceSettings();
  // Of every RAM backend that empties its file when QEMU ends: it no longer does.
  absl::Status KeepMemoryAtEnd();
  // Whether the backend empties its file when QEMU ends; null: it is not known of one without a file.
  absl::StatusOr<Json> AskEmptiedAtEnd(const std::string& backend);
  absl::Status SetEmptiedAtEnd(const std::string& backend, bool emptied);
  absl::Status StartOutgoing();
  absl::StatusOr<Held> WaitForSwitchover(uint64_t cursor);
  absl::Status WaitForCompletion(uint64_t cursor, TimePoint deadline);
  absl::Status EndMigration(TimePoint deadline);
  absl::Status BringTo(bool running, TimePoint deadline);
  // The bytes that have travelled; kFailedPrecondition: more than may.
  absl::StatusOr<uint64_t> CheckRamStaysOut(const std::string& operation);
  std::string MigrationError();
  uint64_t StreamedRamLimitNow();
  // ": it waits for I/O of disk0, disk1", or nothing if it has no disk.
  std::string WhatIoItWaitsFor();

  // Destination.
  absl::Status WaitForLoad(std::chrono::milliseconds timeout);
  // All events at or after `cursor`, once the connection has ended; nothing: it has not within a second,
  // or some are not kept any more.
  std::optional<std::vector<QmpEvent>> LastEvents(uint64_t cursor);
  // What QEMU says of a load that failed; waits a little for its end, before which it says why.
  std::string LoadError();

  const std::unique_ptr<QmpClient> qmp_;
  const QemuLimits limits_;

  // Only the thread that carries out the steps uses these.
  std::optional<MigrationSettings> restore_;
  bool set_here_ = false;  // settings of the source, by this object
  std::vector<std::string> emptied_at_end_;  // backends whose discard-data is to be on again
  std::optional<bool> left_stopped_;         // what StopAndHold() could not undo: the machine ran before
  std::optional<PrintAnswers> fixed_answers_;
  ProcessLog log_;  // of QEMU, since the last step that may fail there
  std::vector<std::string> disks_;  // by id, or by the path of the device
  uint64_t streamed_ram_limit_bytes_ = kDefaultStreamedRamBytes;
  std::unique_ptr<StateStream> outgoing_;
  UniqueFd incoming_;
  uint64_t incoming_cursor_ = 0;  // events since OpenIncoming(), behind those that were read
  bool loaded_ = false;           // by LoadDeviceState()
  std::optional<uint64_t> watched_from_;  // of StopAndHold(), OpenIncoming() or ExpectPaused()

  // Set by OpenIncoming() or StopAndHold(), then AwaitStart()'s own.
  uint64_t start_cursor_ = 0;
};

}  // namespace postcopy
