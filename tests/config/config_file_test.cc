#include "config/config_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <regex>
#include <string>
#include <vector>

#include "config/options.h"

namespace postcopy {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() {
    char name[] = "/tmp/postcopy-test-XXXXXX";
    folder_ = mkdtemp(name);
    path_ = folder_ / "uffd-server.toml";
    Declare(app_, options_);
  }
  ~ConfigFileTest() override { std::filesystem::remove_all(folder_); }

  // Reads a file of this content after a command line of these words.
  absl::Status Read(const std::string& content, const std::string& command_line = "") {
    std::ofstream(path_) << content;
    app_.parse(command_line);
    return ReadConfigFile(path_, app_);
  }
  // "read FILE" as every complaint begins.
  std::string Reading() const { return "read " + path_.string(); }

  std::filesystem::path folder_;
  std::filesystem::path path_;
  Options options_;
  CLI::App app_;
};

TEST_F(ConfigFileTest, EachTypeIsRead) {
  const auto status = Read("listen = ['a:1', \"b:2\"]\ndata-listen = 'c:3'\ninsecure = true\n"
                           "bulk-lanes = 7\nagent-group = \"kvm\"  # a comment\n");
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(options_.listen, ElementsAre("a:1", "b:2"));
  EXPECT_THAT(options_.data_listen, ElementsAre("c:3"));
  EXPECT_TRUE(options_.insecure);
  EXPECT_EQ(options_.bulk_lanes, 7u);
  EXPECT_EQ(options_.agent_group, "kvm");
}

TEST_F(ConfigFileTest, WhatIsNotInTheFileKeepsItsDefault) {
  ASSERT_TRUE(Read("insecure = false\n").ok());
  EXPECT_EQ(options_.bulk_lanes, Options{}.bulk_lanes);
  EXPECT_EQ(options_.listen, Options{}.listen);
  EXPECT_FALSE(options_.insecure);
}

TEST_F(ConfigFileTest, EmptyFileAndDeviceNullSayNothing) {
  EXPECT_TRUE(Read("").ok());
  EXPECT_TRUE(ReadConfigFile("/dev/null", app_).ok());
}

TEST_F(ConfigFileTest, CommandLineWins) {
  const auto status = Read("listen = ['a:1', 'b:2']\nbulk-lanes = 7\ninsecure = true\n",
                           "--listen c:3 --bulk-lanes 4 --insecure=false");
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(options_.listen, ElementsAre("c:3"));
  EXPECT_EQ(options_.bulk_lanes, 4u);
  EXPECT_FALSE(options_.insecure);
}

TEST_F(ConfigFileTest, UnknownKeyIsNamedWithItsLine) {
  const auto status = Read("\n\nlisten-on = 'a:1'\n");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), Reading() + ", line 3, key listen-on: there is no such key");
}

TEST_F(ConfigFileTest, WhatBelongsToTheCommandLineIsNoKey) {
  for (const char* key : {"config", "fault", "help"}) {
    EXPECT_THAT(std::string(Read(std::string(key) + " = 'x'\n").message()),
                EndsWith("there is no such key"));
  }
  EXPECT_THAT(std::string(Read("[daemon]\nlisten = 'a:1'\n").message()),
              HasSubstr("line 1, key daemon: there is no such key"));
}

TEST_F(ConfigFileTest, WrongTypeIsNamedWithItsLine) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"insecure = 'yes'", "true or false"},
      {"insecure = 1", "true or false"},
      {"bulk-lanes = '2'", "a whole number"},
      {"bulk-lanes = 2.0", "a whole number"},
      {"agent-group = 107", "a string"},
      {"agent-group = ['kvm']", "a string"},
      {"listen = 7700", "a string or an array of strings, not empty"},
      {"listen = ['a:1', 2]", "a string or an array of strings, not empty"},
      {"listen = []", "a string or an array of strings, not empty"},
  };
  for (const auto& [line, expected] : wrong) {
    const std::string key = line.substr(0, line.find(' '));
    EXPECT_EQ(Read("# first\n" + line + "\n").message(),
              Reading() + ", line 2, key " + key + ": must be " + expected)
        << line;
  }
}

TEST_F(ConfigFileTest, ValueOutOfRangeIsNamedWithItsLine) {
  EXPECT_EQ(Read("bulk-lanes = 17\n").message(),
            Reading() + ", line 1, key bulk-lanes: Value 17 not in range 1 to 16");
  EXPECT_THAT(std::string(Read("log-level = 'loud'\n").message()),
              StartsWith(Reading() + ", line 1, key log-level: loud not in {"));
}

TEST_F(ConfigFileTest, WhatBecomesOfALostSourceIsAWordAndSeconds) {
  EXPECT_EQ(options_.source_lost, "wait");
  EXPECT_EQ(options_.source_lost_after_s, 300u);
  ASSERT_TRUE(Read("source-lost = 'poison'\nsource-lost-after = 86400\n").ok());
  EXPECT_EQ(options_.source_lost, "poison");
  EXPECT_EQ(options_.source_lost_after_s, 86400u);
}

TEST_F(ConfigFileTest, AnotherWordOrTimeForALostSourceIsRefused) {
  EXPECT_THAT(std::string(Read("source-lost = 'zeros'\n").message()),
              StartsWith(Reading() + ", line 1, key source-lost: zeros not in {"));
  EXPECT_EQ(Read("source-lost-after = '2'\n").message(),
            Reading() + ", line 1, key source-lost-after: must be a whole number");
  for (const char* seconds : {"0", "86401"}) {
    EXPECT_THAT(std::string(Read(std::string("source-lost-after = ") + seconds + "\n").message()),
                HasSubstr("key source-lost-after: Value"));
  }
}

TEST_F(ConfigFileTest, SyntaxErrorIsNamedWithItsLine) {
  const auto status = Read("insecure = true\nlisten = [ 'a:1'\n\nbulk-lanes 2\n");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), StartsWith(Reading() + ", line 4: "));
  EXPECT_THAT(std::string(Read("insecure = true\ninsecure = true\n").message()),
              StartsWith(Reading() + ", line 2: "));
}

TEST_F(ConfigFileTest, FileThatCannotBeReadIsNamed) {
  EXPECT_EQ(ReadConfigFile(folder_ / "none", app_).message(),
            "read " + (folder_ / "none").string() + ": No such file or directory");
  EXPECT_EQ(ReadConfigFile(folder_, app_).message(),
            "read " + folder_.string() + ": Is a directory");
}

// The file that is installed, with every value in force.
TEST_F(ConfigFileTest, InstalledFileHasEachOptionOnceAndItsDefault) {
  std::ifstream file(POSTCOPY_EXAMPLE);
  std::string content;
  for (std::string line; std::getline(file, line);) {
    EXPECT_THAT(line, testing::AnyOf("", StartsWith("#"))) << "not a comment: " << line;
    content += std::regex_replace(line, std::regex("^#(?=[a-z-]+ = )"), "") + "\n";
  }
  const auto status = Read(content);  // a key that stands there twice is a syntax error
  ASSERT_TRUE(status.ok()) << status;
  for (const CLI::Option* option : app_.get_options()) {
    EXPECT_EQ(option->count() > 0, option->get_configurable()) << option->get_name();
  }
  const Options defaults;
  EXPECT_EQ(options_.listen, defaults.listen);
  EXPECT_EQ(options_.runtime_dir, defaults.runtime_dir);
  EXPECT_EQ(options_.state_dir, defaults.state_dir);
  EXPECT_EQ(options_.insecure, defaults.insecure);
  EXPECT_EQ(options_.bulk_lanes, defaults.bulk_lanes);
  EXPECT_EQ(options_.log_level, defaults.log_level);
  EXPECT_EQ(options_.source_lost, defaults.source_lost);
  EXPECT_EQ(options_.source_lost_after_s, defaults.source_lost_after_s);
}

}  // namespace
}  // namespace postcopy
