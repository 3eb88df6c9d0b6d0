#include "vmm/process_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace postcopy {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A process whose stderr is `redirection` of a shell, which says what the test wants it to say.
class Child {
 public:
  explicit Child(const std::string& redirection) {
    pipe_ = popen(("exec sh 2>" + redirection).c_str(), "w");
    Do("echo $$ >" + pid_file_.string());
    pid_ = std::stoi(Await());
  }
  ~Child() {
    if (pipe_ != nullptr) pclose(pipe_);
    std::filesystem::remove(pid_file_);
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Returns when the shell has done it.
  void Say(const std::string& words) {
    std::filesystem::remove(pid_file_);
    Do("printf '" + words + "' >&2; echo 1 >" + pid_file_.string());
    Await();
  }
  void End() {
    pclose(pipe_);
    pipe_ = nullptr;
  }
  int pid() const { return pid_; }

 private:
  void Do(const std::string& line) {
    std::fputs((line + "\n").c_str(), pipe_);
    std::fflush(pipe_);
  }
  std::string Await() {
    for (;;) {
      std::ifstream file(pid_file_);
      std::string line;
      if (std::getline(file, line) && !line.empty() && !file.eof()) return line;
    }
  }

  const std::filesystem::path pid_file_ =
      std::filesystem::path(testing::TempDir()) / ("said-" + std::to_string(std::rand()));
  std::FILE* pipe_ = nullptr;
  int pid_ = 0;
};

std::string LogFile() { return testing::TempDir() + "/qemu.err"; }

TEST(ProcessLogTest, QuotesTheLastLinesThatWereWrittenSinceTheMark) {
  Child child(LogFile());
  child.Say("warning: of the start\\n");
  ProcessLog log(child.pid());
  EXPECT_THAT(log.Words(), AllOf(HasSubstr("nothing"), HasSubstr("qemu.err")));
  child.Say("1\\n2\\n3\\nUnknown savevm section\\nload of migration failed\\n");
  EXPECT_EQ(log.Words(),
            "its stderr says \"2 | 3 | Unknown savevm section | load of migration failed\"");
  log.Mark();
  EXPECT_THAT(log.Words(), HasSubstr("nothing"));
}

TEST(ProcessLogTest, IsReadableWhenTheProcessHasEndedAndItsFileIsDeleted) {
  Child child(LogFile());
  ProcessLog log(child.pid());
  child.Say("the last words\\n");
  child.End();
  std::filesystem::remove(LogFile());
  EXPECT_EQ(log.Words(), "its stderr says \"the last words\"");
}

TEST(ProcessLogTest, WhatATerminalWouldObeyIsNotQuoted) {
  Child child(LogFile());
  ProcessLog log(child.pid());
  child.Say("a\\033[31mb\\n");
  EXPECT_THAT(log.Words(), Not(HasSubstr("\033")));
}

TEST(ProcessLogTest, AFileThatWasEmptiedBeginsAgain) {
  Child child(">" + LogFile());  // 2>>: as an append
  child.Say("long words of long ago\\n");
  ProcessLog log(child.pid());
  std::filesystem::resize_file(LogFile(), 0);
  child.Say("new\\n");
  EXPECT_EQ(log.Words(), "its stderr says \"new\"");
}

TEST(ProcessLogTest, SaysWhereAStderrGoesThatIsNoFile) {
  Child child("/dev/null");
  EXPECT_EQ(ProcessLog(child.pid()).Words(), "its stderr has more: it goes to /dev/null");
  EXPECT_THAT(ProcessLog().Words(), HasSubstr("not known"));
  EXPECT_THAT(ProcessLog(-1).Words(), HasSubstr("not known"));
}

}  // namespace
}  // namespace postcopy
