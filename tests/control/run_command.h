// Runs a program with its output in files, so that a test can signal it and then read both.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <vector>

namespace postcopy {

struct Finished {
  int code = -1;  // 128 + signal if one ended it
  std::string out;
  std::string err;
};

class RunningCommand {
 public:
  explicit RunningCommand(const std::vector<std::string>& words) {
    char name[] = "/tmp/postcopy-test-XXXXXX";
    folder_ = mkdtemp(name);
    const std::string out = folder_ / "out";
    const std::string err = folder_ / "err";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&actions, 2, err.c_str(), O_WRONLY | O_CREAT, 0600);
    std::vector<char*> argv;
    for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    if (posix_spawn(&pid_, argv[0], &actions, nullptr, argv.data(), environ) != 0) pid_ = -1;
    posix_spawn_file_actions_destroy(&actions);
  }
  RunningCommand(const RunningCommand&) = delete;
  RunningCommand& operator=(const RunningCommand&) = delete;
  ~RunningCommand() {
    if (pid_ > 0) kill(pid_, SIGKILL);
    Wait();
    std::filesystem::remove_all(folder_);
  }

  void Signal(int number) const { kill(pid_, number); }

  Finished Wait() {
    if (pid_ <= 0) return {};
    int status = 0;
    waitpid(pid_, &status, 0);
    pid_ = -1;
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), Read("out"),
            Read("err")};
  }

 private:
  std::string Read(const char* name) const {
    std::ostringstream text;
    text << std::ifstream(folder_ / name).rdbuf();
    return text.str();
  }

  std::filesystem::path folder_;
  pid_t pid_ = -1;
};

}  // namespace postcopy
