#include "config/typing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postcopy {
namespace {

TEST(TypingTest, TheNearestWordIsSuggested) {
  const std::vector<std::string> commands{"relocate", "release", "recover", "list", "watch"};
  EXPECT_EQ(Nearest("relocte", commands), "relocate");
  EXPECT_EQ(Nearest("relcoate", commands), "relocate");
  EXPECT_EQ(Nearest("recovr", commands), "recover");
  EXPECT_EQ(Nearest("lsit", commands), "list");
  EXPECT_EQ(Nearest("teleport", commands), "");
  EXPECT_EQ(Nearest("x", commands), "");
  EXPECT_EQ(Nearest(std::string(100'000, 'r'), commands), "");
  EXPECT_EQ(Suggestion("wacth", commands), ", did you mean watch?");
  EXPECT_EQ(Suggestion("", commands), "");
}

struct Program {
  Program() {
    app.add_option("--daemon", daemon);
    app.add_flag("--json", json);
    CLI::App* relocate = app.add_subcommand("relocate", "");
    relocate->add_option("vm", vm);
    relocate->add_option("--to", to);
    app.add_subcommand("list", "");
  }
  std::string Unknown(const std::vector<std::string>& words) const {
    return UnknownWord(app, words).value_or("");
  }

  CLI::App app;
  std::string daemon, vm, to;
  bool json = false;
};

TEST(TypingTest, UnknownCommandsAndOptionsAreNamed) {
  const Program program;
  EXPECT_EQ(program.Unknown({"relocte", "web1"}),
            "there is no command relocte, did you mean relocate?");
  EXPECT_EQ(program.Unknown({"--daemon", "x", "teleport"}), "there is no command teleport");
  EXPECT_EQ(program.Unknown({"relocate", "web1", "--too", "x"}),
            "relocate: there is no option --too, did you mean --to?");
  EXPECT_EQ(program.Unknown({"--jsno", "list"}), "there is no option --jsno, did you mean --json?");
  EXPECT_EQ(program.Unknown({"list", "--to=b"}), "list: there is no option --to");
}

TEST(TypingTest, WhatIsKnownIsLeftToTheParser) {
  const Program program;
  for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{
           {}, {"list"}, {"relocate", "relocte", "--to", "--weird", "--json"},
           {"--daemon=relocte", "relocate", "web1", "--to=b"}, {"relocate", "--daemon", "lst", "web1"},
           {"list", "--help"}, {"-h"}, {"relocate", "web1", "more"}, {"list", "--", "--what"}}) {
    EXPECT_EQ(program.Unknown(words), "") << ::testing::PrintToString(words);
  }
}

}  // namespace
}  // namespace postcopy
