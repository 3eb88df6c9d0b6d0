// What postcopyctl says of wrong command lines, of a daemon that is not there, and of itself.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "tests/control/postcopyctl_fixture.h"

namespace postcopy {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class PostcopyctlUsageTest : public PostcopyctlTest {};

TEST_F(PostcopyctlUsageTest, TypingErrorsAreNamedWithWhatWasMeant) {
  const auto complaint = [this](const std::vector<std::string>& words) {
    const Finished run = Run(words);
    EXPECT_EQ(run.code, 2);
    return run.err.substr(0, run.err.find('\n'));
  };
  EXPECT_EQ(complaint({"relocte", "web1"}),
            "postcopyctl: there is no command relocte, did you mean relocate?");
  EXPECT_EQ(complaint({"relocate", "web1", "--too", "x"}),
            "postcopyctl: relocate: there is no option --too, did you mean --to?");
  EXPECT_EQ(complaint({"relocate", "web1", "--to", ""}),
            "postcopyctl: --to an empty text: it names no host");
  EXPECT_EQ(complaint({"relocate", "web1", "--to", "b:abc"}),
            "postcopyctl: --to b:abc: the port is not a number from 1 to 65535");
  EXPECT_EQ(complaint({"relocate", "web1", "--to", "0.0.0.0"}),
            "postcopyctl: --to 0.0.0.0: it means every address of a host, so nothing can connect to "
            "it");
  EXPECT_EQ(complaint({"list", "--daemon", "[::1"}), "postcopyctl: --daemon [::1: the bracket is not "
                                                     "closed");
  EXPECT_THAT(relocations_.calls(), IsEmpty());
}

TEST_F(PostcopyctlUsageTest, UnreachableDaemonIsFiveAndFast) {
  const auto before = std::chrono::steady_clock::now();
  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{{"list"}, {"watch", "x"}, kRelocate}) {
    std::vector<std::string> words{POSTCOPYCTL, "--daemon", "127.0.0.1:1"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    const Finished run = RunningCommand(words).Wait();
    EXPECT_EQ(run.code, 5);
    EXPECT_THAT(run.err, HasSubstr("daemon 127.0.0.1:1: connection refused; the address is of "
                                   "--daemon; is uffd-server running there"));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - before, std::chrono::seconds(3));
}

TEST_F(PostcopyctlUsageTest, WrongCommandLinesAreTwo) {
  for (const std::vector<std::string>& arguments : std::vector<std::vector<std::string>>{
           {},
           {"teleport"},
           {"relocate", "web1"},
           {"relocate", "--to", "b"},
           {"cancel"},
           {"list", "--no-such-option"},
           {"source-lost", "web1"},
           {"source-lost", "web1", "--poison", "--kill"},
           {"source-lost", "--kill"},
           {"destination-lost", "web1"},
           {"destination-lost", "--resume"},
           {"relocate", "web1", "--to", "b", "--no-wait", "--prepare-only"}}) {
    const Finished run = Run(arguments);
    EXPECT_EQ(run.code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(run.err, StartsWith("postcopyctl: "));
  }
  EXPECT_THAT(relocations_.calls(), IsEmpty());
}

TEST_F(PostcopyctlUsageTest, HelpHasAnExampleOfEachCommand) {
  for (const std::string command : {"relocate", "check", "switch", "list", "watch", "cancel", "stats",
                                    "source-lost", "destination-lost", "recover", "release"}) {
    const Finished run = Run({command, "--help"});
    EXPECT_EQ(run.code, 0);
    EXPECT_THAT(run.out, HasSubstr("Example:\n  postcopyctl " + command));
    EXPECT_THAT(run.out, HasSubstr("\n  --daemon ADDRESS"));
    EXPECT_THAT(run.out, HasSubstr("\n  --json "));
    EXPECT_THAT(Run({"--help"}).out, HasSubstr("\n  " + command));
  }
  EXPECT_THAT(Run({"--version"}).out, StartsWith("postcopyctl "));
}

}  // namespace
}  // namespace postcopy
