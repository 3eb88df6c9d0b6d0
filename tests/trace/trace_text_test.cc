#include "trace/trace_text.h"

#include <fstream>
#include <sstream>

#include "gmock/gmock.h"

namespace postcopy {
namespace {

using std::chrono::nanoseconds;
using testing::StartsWith;

// The example of the document.
std::string Example() {
  std::ifstream file(POSTCOPY_TRACE_FORMAT);
  std::ostringstream text;
  text << file.rdbuf();
  const std::string document = text.str();
  const size_t begin = document.find("```\n") + 4;
  return document.substr(begin, document.find("```", begin) - begin);
}

std::string ErrorOf(std::string_view text) {
  const auto trace = ParseTrace(text);
  return trace.ok() ? "" : std::string(trace.status().message());
}

// A trace with these lines behind those that every trace has: theirs begin at line 5.
std::string With(const std::string& lines) {
  return "postcopy-trace 1\nvm v\nsession s\nblock 16 4096 ram\n" + lines;
}

TEST(TraceTextTest, DocumentsExampleIsReadAndWrittenAgain) {
  const auto trace = ParseTrace(Example());
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->blocks[1].name, "my rom");
  EXPECT_EQ(trace->resumed, nanoseconds(2500000));
  EXPECT_EQ(trace->data.size(), 3u);
  ASSERT_EQ(trace->faults.size(), 4u);
  EXPECT_EQ(trace->faults[0].wait, nanoseconds(231000));
  EXPECT_EQ(trace->faults[1].kind, FaultKind::kJoined);
  EXPECT_EQ(trace->faults[1].wait, std::nullopt);
  EXPECT_EQ(FormatTrace(*trace), Example());
}

TEST(TraceTextTest, NamesOfAnyBytesSurvive) {
  Trace trace;
  trace.vm = "100% web\n1";
  trace.session = std::string("\0\xff", 2);
  trace.blocks = {{"/objects/ram 0", 4, 4096}};
  const auto again = ParseTrace(FormatTrace(trace));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(*again, trace);
}

TEST(TraceTextTest, WhatIsNotKnownStaysSo) {
  const auto trace = ParseTrace(With("end\n"));
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->resumed, std::nullopt);
  EXPECT_EQ(trace->left_out, 0u);
}

TEST(TraceTextTest, FaultsAreSortedByTime) {
  const auto trace = ParseTrace(With("fault 9 0 1 asked -\nfault 3 0 2 asked 5\nend\n"));
  ASSERT_TRUE(trace.ok()) << trace.status();
  EXPECT_EQ(trace->faults[0].page.page.value, 2u);
}

TEST(TraceTextTest, BadLinesAreNamed) {
  const std::pair<const char*, const char*> cases[] = {
      {"fault 1 0 16 asked -\nend\n", "line 5: the page is not a number from 0 to 15"},
      {"fault 1 1 0 asked -\nend\n", "line 5: the block is not a number from 0 to 0"},
      {"fault 1 0 0 guessed -\nend\n", "line 5: the kind is not one of"},
      {"fault 1 0 0 asked\nend\n", "line 5: too few words"},
      {"fault 1 0 0 asked - -\nend\n", "line 5: too many words"},
      {"fault 1 0  0 asked -\nend\n", "line 5: an empty word"},
      {"fault -1 0 0 asked -\nend\n", "line 5: the time is not a number"},
      {"fault 99999999999999999999 0 0 asked -\nend\n", "line 5: the time is not a number"},
      {"data 0 8 9\nend\n", "line 5: the number of pages is not a number from 0 to 8"},
      {"block 0 4096 x\nend\n", "line 5: a block without pages"},
      {"block 1 5000 x\nend\n", "line 5: the size of a page is no multiple of 4096"},
      {"block 1 4096 a%2\nend\n", "line 5: the block's name: no two hexadecimal digits"},
      {"resume 1\nresume 1\nend\n", "line 6: there was such a line before"},
      {"\nend\n", "line 5: "},
      {"what 1\nend\n", "line 5: not one of"},
      {"end\nend\n", "line 6: behind the end"},
      {"", "line 5: the file ends without end"},
      {"en", "line 5: it does not end"},
  };
  for (const auto& [lines, complaint] : cases) {
    EXPECT_THAT(ErrorOf(With(lines)), StartsWith(complaint)) << lines;
  }
}

TEST(TraceTextTest, WhatMustBeThereIsAskedFor) {
  EXPECT_THAT(ErrorOf(""), StartsWith("line 1: "));
  EXPECT_EQ(ErrorOf("postcopy-trace 2\n"), "line 1: not postcopy-trace 1");
  EXPECT_EQ(ErrorOf("postcopy-trace 1\nvm v\nend\n"), "line 4: there is no line session");
  EXPECT_EQ(ErrorOf("postcopy-trace 1\nvm v\nsession s\nend\n"), "line 5: there is no line block");
  EXPECT_EQ(ErrorOf("postcopy-trace 1\nfault 1 0 0 asked -\n"),
            "line 2: no block was described before");
}

}  // namespace
}  // namespace postcopy
