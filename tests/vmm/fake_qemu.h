// A QEMU of variables behind a ScriptedQmp: run state, migration state, capabilities.
//
// Moves as QEMU 7.2 was seen to move, and can be put into any state, so that each step of the
// driver can be shown from each state. A test changes one answer by Override().
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "tests/vmm/scripted_qmp.h"
#include "vmm/qemu_driver.h"

namespace postcopy {

class FakeQemu {
 public:
  explicit FakeQemu(std::string run, std::string migration = "")
      : run_(std::move(run)), migration_(std::move(migration)) {
    for (const char* name : {"events", "x-ignore-shared", "pause-before-switchover",
                             "late-block-activate", "multifd"}) {
      capabilities_[name] = std::string(name) == "multifd";
    }
    server_ = std::make_unique<ScriptedQmp>([this](const Json& request) { return Do(request); });
  }

  // Short limits: only a test of a time-out ever waits for one.
  std::unique_ptr<QemuDriver> Driver(std::chrono::milliseconds step_limit) {
    auto qmp = QmpClient::Open(server_->TakeClientEnd(), "/run/x.sock", std::chrono::seconds(10));
    QemuLimits limits;
    limits.hold = limits.take = limits.load = limits.start = limits.resume = step_limit;
    return std::make_unique<QemuDriver>(*std::move(qmp), limits);
  }
  std::unique_ptr<QemuDriver> Driver() { return Driver(std::chrono::seconds(10)); }

  // Answers `command` so instead.
  void Override(const std::string& command, ScriptedQmp::Handler handler) {
    std::lock_guard lock(mutex_);
    overrides_[command] = std::move(handler);
  }
  // Before each query-status the next of these becomes the run state, as if time passed.
  void RunStatesToCome(std::vector<std::string> states) {
    std::lock_guard lock(mutex_);
    next_runs_ = std::move(states);
  }
  void MigrationStatesToCome(std::vector<std::string> states) {
    std::lock_guard lock(mutex_);
    next_migrations_ = std::move(states);
  }
  void CancelLeads(std::string run, std::string migration) {
    std::lock_guard lock(mutex_);
    after_cancel_ = {std::move(run), std::move(migration)};
  }
  void Set(std::string run, std::string migration) {
    std::lock_guard lock(mutex_);
    run_ = std::move(run);
    migration_ = std::move(migration);
  }
  std::string run() const {
    std::lock_guard lock(mutex_);
    return run_;
  }
  void SetCapability(const std::string& name, bool on) {
    std::lock_guard lock(mutex_);
    capabilities_[name] = on;
  }
  std::map<std::string, bool> capabilities() const {
    std::lock_guard lock(mutex_);
    return capabilities_;
  }
  Json parameters() const {
    std::lock_guard lock(mutex_);
    return parameters_;
  }
  // Whether it empties its RAM file when it ends.
  void SetDiscardData(bool on) {
    std::lock_guard lock(mutex_);
    discard_data_ = on;
  }
  bool discard_data() const {
    std::lock_guard lock(mutex_);
    return discard_data_;
  }
  int Count(const std::string& command) const {
    int count = 0;
    for (const std::string& name : server_->commands()) count += name == command;
    return count;
  }
  ScriptedQmp& server() { return *server_; }

 private:
  QmpAnswer Do(const Json& request) {
    const std::string command = StringAt(request, "execute");
    std::unique_lock lock(mutex_);
    const auto override_of = overrides_.find(command);
    if (override_of != overrides_.end()) {
      const ScriptedQmp::Handler handler = override_of->second;
      lock.unlock();
      return handler(request);
    }
    return {{Answer(command, request)}};
  }

  static void Advance(std::vector<std::string>& to_come, std::string& now) {
    if (to_come.empty()) return;
    now = to_come.front();
    to_come.erase(to_come.begin());
  }

  std::string Answer(const std::string& command, const Json& request) {
    const Json& arguments = MemberAt(request, "arguments");
    if (command == "query-status") {
      Advance(next_runs_, run_);
      return QmpReturn(request, {{"status", run_}, {"running", run_ == "running"}});
    }
    if (command == "query-migrate") {
      Advance(next_migrations_, migration_);
      if (migration_.empty()) return QmpReturn(request);
      return QmpReturn(request, {{"status", migration_},
                                 {"ram", {{"total", 794624}, {"transferred", 456408}}}});
    }
    if (command == "query-migrate-capabilities") {
      Json list = Json::array();
      for (const auto& [name, state] : capabilities_) {
        list.push_back({{"capability", name}, {"state", state}});
      }
      return QmpReturn(request, list);
    }
    if (command == "migrate-set-capabilities") {
      for (const Json& entry : MemberAt(arguments, "capabilities")) {
        capabilities_[StringAt(entry, "capability")] = BoolAt(entry, "state");
      }
      return QmpReturn(request);
    }
    if (command == "query-migrate-parameters") return QmpReturn(request, parameters_);
    if (command == "migrate-set-parameters") {
      parameters_.update(arguments);
      return QmpReturn(request);
    }
    if (command == "migrate_cancel") {
      std::tie(run_, migration_) = after_cancel_;
      return QmpReturn(request);
    }
    if (command == "cont" || command == "stop") return Steer(command, request);
    if (command == "x-query-ramblock") {
      return QmpReturn(request, {{"human-readable-text",
                                  "Block Name PSize Offset Used Total\n"
                                  "ram 4 KiB 0x0 0x10000000 0x10000000\n"
                                  "pc.bios 4 KiB 0x10000000 0x40000 0x40000\n"}});
    }
    if (command == "query-memdev") {
      return QmpReturn(request, Json::array({{{"id", "ram"}, {"share", true}, {"size", 1 << 28}}}));
    }
    if (command == "qom-get" && StringAt(arguments, "property") == "discard-data") {
      return QmpReturn(request, discard_data_);
    }
    if (command == "qom-get" && StringAt(arguments, "property") == "memory-backend") {
      return QmpReturn(request, "/objects/ram");
    }
    if (command == "qom-get") return QmpReturn(request, "/dev/shm/ram");
    if (command == "qom-set") {
      discard_data_ = BoolAt(arguments, "value");
      return QmpReturn(request);
    }
    return QmpReturn(request);
  }

  std::string Steer(const std::string& command, const Json& request) {
    if (run_ == "finish-migrate") return QmpRefusal(request, "Migration is not finalized yet");
    if (run_ == "inmigrate") return QmpReturn(request);
    run_ = command == "cont" ? "running" : "paused";
    return QmpEventLine(command == "cont" ? "RESUME" : "STOP", Json::object(), 7, 5) +
           QmpReturn(request);
  }

  mutable std::mutex mutex_;
  std::string run_;
  std::string migration_;
  std::pair<std::string, std::string> after_cancel_ = {"running", "cancelled"};
  std::vector<std::string> next_runs_;
  std::vector<std::string> next_migrations_;
  std::map<std::string, bool> capabilities_;
  bool discard_data_ = false;
  Json parameters_ = {{"max-bandwidth", 134217728}, {"downtime-limit", 300}, {"tls-creds", ""}};
  std::map<std::string, ScriptedQmp::Handler> overrides_;
  std::unique_ptr<ScriptedQmp> server_;
};

}  // namespace postcopy
