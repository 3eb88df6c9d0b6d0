// The daemon's agent server in this process, and a program under the hook in another.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "server/agent_server.h"
#include "server/vm_registry.h"

extern char** environ;

namespace postcopy {

// True as soon as `condition` is, which another process or thread makes true; false after 20 s.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return true;
}

// A directory of its own on tmpfs, removed at the end.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    char name[] = "/dev/shm/postcopy-test-XXXXXX";
    path_ = mkdtemp(name);
  }
  ~ScratchDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// A program that this test started, with pipes to its stdin and from its stdout.
class Program {
 public:
  Program(std::vector<std::string> arguments, const std::vector<std::string>& variables,
          const std::string& stderr_path)
      : stderr_path_(stderr_path) {
    int in[2], out[2];
    EXPECT_EQ(pipe2(in, O_CLOEXEC), 0);
    EXPECT_EQ(pipe2(out, O_CLOEXEC), 0);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, stderr_path.c_str(),
                                     O_WRONLY | O_CREAT | O_APPEND, 0600);
    std::vector<char*> argv, env;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    argv.push_back(nullptr);
    std::vector<std::string> all = variables;
    for (char** variable = environ; *variable != nullptr; ++variable) all.push_back(*variable);
    for (std::string& variable : all) env.push_back(variable.data());
    env.push_back(nullptr);
    EXPECT_EQ(posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), env.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    input_ = in[1];
    output_ = fdopen(out[0], "r");
  }
  ~Program() {
    Kill();
    close(input_);
    fclose(output_);
  }
  Program(const Program&) = delete;

  int pid() const { return pid_; }
  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  // The exit code; -1 if it ended by a signal. Blocks.
  int Wait() {
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }
  void Send(const std::string& line) {
    const std::string text = line + "\n";
    EXPECT_EQ(write(input_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  std::string ReadLine() {
    char line[4096];
    if (fgets(line, sizeof line, output_) == nullptr) return "(end)";
    std::string text = line;
    if (!text.empty() && text.back() == '\n') text.pop_back();
    return text;
  }
  std::string Ask(const std::string& line) {
    Send(line);
    return ReadLine();
  }
  std::string Stderr() const {
    std::ostringstream text;
    text << std::ifstream(stderr_path_).rdbuf();
    return text.str();
  }

 private:
  std::string stderr_path_;
  pid_t pid_ = 0;
  int input_ = -1;
  FILE* output_ = nullptr;
};

class HookFixture : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitized hook can't be preloaded into a program that is not";
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
    GTEST_SKIP() << "a sanitized hook can't be preloaded into a program that is not";
#endif
#endif
    StartDaemon();
  }

  void StartDaemon() {
    registry_ = std::make_unique<VmRegistry>();
    auto server = AgentServer::Start({scratch_.path(), 0660}, *registry_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  void StopDaemon() {
    server_.reset();
    registry_.reset();
  }

  std::vector<std::string> Hooked(const std::string& vm) const {
    return {std::string("LD_PRELOAD=") + POSTCOPY_PRELOAD_LIBRARY, "POSTCOPY_VM=" + vm,
            "POSTCOPY_AGENT=" + scratch_.path() + "/agent.sock"};
  }
  std::string Path(const std::string& name) const { return scratch_.path() + "/" + name; }

  bool Registered(const std::string& vm, size_t count_blocks) const {
    return Eventually([&] {
      auto record = registry_->Find(vm);
      return record.ok() && record->connected && record->blocks.size() == count_blocks;
    });
  }

  ScratchDirectory scratch_;
  const UniqueFd keepsake_{memfd_create("keepsake", MFD_CLOEXEC)};
  std::unique_ptr<VmRegistry> registry_;
  std::unique_ptr<AgentServer> server_;
};

}  // namespace postcopy
