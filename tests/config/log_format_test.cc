#include "config/log_format.h"

#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

TEST(LogFormatTest, ALineStaysOneLineAndNoTerminalObeysIt) {
  std::ostringstream out;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(std::make_shared<spdlog::logger>(
      "test", std::make_shared<spdlog::sinks::ostream_sink_st>(out)));
  SetLogFormat();
  spdlog::info("vm registered, problem {}",
               "ok\n2026-11-28T00:00:00.000 info agent: vm registered, name FORGED\x1b]0;PWNED\x07");
  spdlog::set_default_logger(before);
  EXPECT_THAT(out.str(),
              testing::MatchesRegex("[0-9T:.-]+ info vm registered, problem "
                                    "ok.x0a2026-11-28T00:00:00.000 info agent: vm registered, name "
                                    "FORGED.x1b]0;PWNED.x07\n"));
}

}  // namespace
}  // namespace postcopy
