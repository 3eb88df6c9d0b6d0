#include "cli/local_daemon.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace postcopy {
namespace {

using ::testing::HasSubstr;

class LocalDaemonTest : public ::testing::Test {
 protected:
  LocalDaemonTest() {
    char name[] = "/tmp/postcopy-test-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ / "uffd-server.toml";
  }
  ~LocalDaemonTest() override { std::filesystem::remove_all(folder_); }

  // With this content of the file.
  DaemonChoice Choose(const std::string& content) const {
    std::ofstream(path_) << content;
    return ChooseDaemon("", "", path_);
  }

  std::filesystem::path folder_;
  std::filesystem::path path_;
};

TEST_F(LocalDaemonTest, TheCommandLineComesFirstThenTheEnvironmentThenTheFile) {
  std::ofstream(path_) << "listen = '10.0.0.7'\n";
  EXPECT_EQ(ChooseDaemon("a:1", "b:2", path_).address, "a:1");
  EXPECT_EQ(ChooseDaemon("a:1", "b:2", path_).chosen_by, "--daemon");
  EXPECT_EQ(ChooseDaemon("", "b:2", path_).address, "b:2");
  EXPECT_EQ(ChooseDaemon("", "b:2", path_).chosen_by, "POSTCOPY_DAEMON");
  EXPECT_EQ(ChooseDaemon("", "", path_).address, "10.0.0.7:7700");
  EXPECT_EQ(ChooseDaemon("", "", path_).chosen_by, "`listen` in " + path_.string());
}

TEST_F(LocalDaemonTest, OfSeveralAddressesTheLocalOneIsTaken) {
  EXPECT_EQ(Choose("listen = ['10.0.0.7:1', '127.0.0.1:2']").address, "127.0.0.1:2");
  EXPECT_EQ(Choose("listen = ['10.0.0.7:1', 'unix:/run/c', '127.0.0.1:2']").address, "unix:/run/c");
  EXPECT_EQ(Choose("listen = ['10.0.0.7:1', '10.0.0.8:2']").address, "10.0.0.7:1");
  EXPECT_EQ(Choose("listen = '0.0.0.0:3'").address, "127.0.0.1:3");
  EXPECT_EQ(Choose("listen = '[::]:3'").address, "[::1]:3");
}

TEST_F(LocalDaemonTest, WithoutTheFileOrTheKeyItIsTheDaemonsOwnDefault) {
  EXPECT_EQ(ChooseDaemon("", "", path_).address, "127.0.0.1:7700");
  EXPECT_EQ(ChooseDaemon("", "", path_).chosen_by, "the default");
  EXPECT_EQ(Choose("bulk-lanes = 3").chosen_by, "the default");
}

TEST_F(LocalDaemonTest, AFileThatIsWrongIsPassedOverAndNamed) {
  const DaemonChoice choice = Choose("listen = 7700");
  EXPECT_EQ(choice.address, "127.0.0.1:7700");
  EXPECT_THAT(choice.chosen_by, HasSubstr(path_.string() + " can't be read"));
}

}  // namespace
}  // namespace postcopy
