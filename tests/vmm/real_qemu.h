// A QEMU process under TCG without a guest system (its firmware's loop is guest enough), for tests.
//
// Two monitors: one for the driver under test, one for the test in the part of the operator.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "vmm/qemu_driver.h"
#include "vmm/qmp_client.h"

namespace postcopy {

// The program under test: $POSTCOPY_QEMU or the PATH's; empty if there is none.
inline std::string QemuProgram() {
  if (const char* chosen = std::getenv("POSTCOPY_QEMU")) return chosen;
  const std::string path = std::getenv("PATH") != nullptr ? std::getenv("PATH") : "";
  for (size_t start = 0; start < path.size();) {
    const size_t end = std::min(path.find(':', start), path.size());
    const std::string program = path.substr(start, end - start) + "/qemu-system-x86_64";
    if (::access(program.c_str(), X_OK) == 0) return program;
    start = end + 1;
  }
  return "";
}

// A folder for sockets, and a RAM file on tmpfs. Both QEMUs of a move map the same file, so that
// only the device state has to move.
class QemuWorkspace {
 public:
  QemuWorkspace() {
    char folder[] = "/tmp/postcopy-vmm-XXXXXX";
    folder_ = ::mkdtemp(folder);
    ram_file_ = "/dev/shm" + folder_.substr(folder_.rfind('/'));
  }
  ~QemuWorkspace() {
    std::error_code ignored;
    std::filesystem::remove_all(folder_, ignored);
    std::filesystem::remove(ram_file_, ignored);
  }
  const std::string& folder() const { return folder_; }
  const std::string& ram_file() const { return ram_file_; }

 private:
  std::string folder_;
  std::string ram_file_;
};

class RealQemu {
 public:
  static constexpr std::chrono::milliseconds kLimit{20'000};

  // `name` is unique in the workspace.
  RealQemu(const QemuWorkspace& workspace, const std::string& name,
           const std::vector<std::string>& ram, const std::vector<std::string>& more)
      : driver_path_(workspace.folder() + "/" + name + ".qmp"),
        operator_path_(workspace.folder() + "/" + name + ".operator") {
    std::vector<std::string> words = {
        QemuProgram(), "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg",
        "-device", "VGA,romfile=", "-device", "virtio-balloon-pci,id=balloon",
        "-qmp", "unix:" + driver_path_ + ",server=on,wait=off",
        "-qmp", "unix:" + operator_path_ + ",server=on,wait=off"};
    words.insert(words.end(), ram.begin(), ram.end());
    words.insert(words.end(), more.begin(), more.end());
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    // Failed loads are part of these tests: QEMU's complaints are kept beside its sockets.
    const std::string log = workspace.folder() + "/" + name + ".log";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_CREAT | O_WRONLY, 0600);
    if (::posix_spawn(&pid_, words[0].c_str(), &actions, nullptr, arguments.data(), environ) != 0) {
      pid_ = 0;
    }
    posix_spawn_file_actions_destroy(&actions);
  }
  ~RealQemu() { Kill(); }
  RealQemu(const RealQemu&) = delete;
  RealQemu& operator=(const RealQemu&) = delete;

  static std::vector<std::string> FileRam(const QemuWorkspace& workspace) {
    return {"-m", "256", "-machine", "pc,memory-backend=ram", "-object",
            "memory-backend-file,id=ram,size=256M,share=on,mem-path=" + workspace.ram_file()};
  }

  void Kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  // True when the process has ended by itself within the limit.
  bool WaitForExit() {
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    while (std::chrono::steady_clock::now() < deadline) {
      if (::waitpid(pid_, nullptr, WNOHANG) == pid_) {
        pid_ = 0;
        return true;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return false;
  }

  int pid() const { return pid_; }

 private:
  // The socket's path appears before QEMU listens on it: only connecting tells.
  template <typename Connect>
  static auto Await(Connect connect) {
    const auto deadline = std::chrono::steady_clock::now() + kLimit;
    auto connected = connect();
    while (!connected.ok() && std::chrono::steady_clock::now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      connected = connect();
    }
    // Thrown, so that the test ends with the QEMUs that it started.
    if (!connected.ok()) throw std::runtime_error(connected.status().ToString());
    return *std::move(connected);
  }

 public:
  // Connects as soon as QEMU listens. REQUIRES: QEMU starts.
  std::unique_ptr<QemuDriver> Driver() const {
    return Await([&] { return QemuDriver::Connect(driver_path_, pid_); });
  }
  // The operator's monitor; connected once.
  QmpClient& Operator() {
    if (operator_ == nullptr) {
      operator_ = Await([&] { return QmpClient::Connect(operator_path_, pid_, kLimit); });
    }
    return *operator_;
  }
  std::string RunState() {
    auto status = Operator().Command("query-status", Json::object(), kLimit);
    return status.ok() ? StringAt(*status, "status") : std::string(status.status().message());
  }

 private:
  const std::string driver_path_;
  const std::string operator_path_;
  pid_t pid_ = 0;
  std::unique_ptr<QmpClient> operator_;
};

}  // namespace postcopy
