#include "cli/progress_printer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>

namespace postcopy {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

class ProgressPrinterTest : public ::testing::Test {
 protected:
  static v1::Progress In(v1::State state) {
    v1::Progress progress;
    progress.set_vm("web1");
    progress.set_session("s");
    progress.set_state(state);
    return progress;
  }
  std::string Written() {
    std::string text(static_cast<size_t>(std::ftell(file_.get())), '\0');
    std::rewind(file_.get());
    EXPECT_EQ(std::fread(text.data(), 1, text.size(), file_.get()), text.size());
    return text;
  }

  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_{std::tmpfile(), std::fclose};
  const steady_clock::time_point start_{};
};

TEST_F(ProgressPrinterTest, PlainLinesAreOneAStateAndOneASecond) {
  ProgressPrinter printer({.out = file_.get()});
  printer.Show(In(v1::STATE_PREPARED), start_);
  printer.Show(In(v1::STATE_PREPARED), start_ + milliseconds(500));
  printer.Show(In(v1::STATE_PREPARED), start_ + milliseconds(1000));
  printer.Show(In(v1::STATE_STOPPING), start_ + milliseconds(1001));
  EXPECT_EQ(Written(), "web1: prepared, the VM runs at its source until `switch` or `cancel`\n"
            "web1: prepared, the VM runs at its source until `switch` or `cancel`\n"
            "web1: stopping\n");
}

TEST_F(ProgressPrinterTest, BarIsRedrawnInPlaceAndGivesWay) {
  ProgressPrinter printer({.out = file_.get(), .redraw = true, .width = 30});
  printer.Show(In(v1::STATE_PREPARED), start_);
  printer.Show(In(v1::STATE_RUNNING), start_ + milliseconds(1));
  printer.Say("a line");
  EXPECT_EQ(Written(),
            "\r\x1b[Kweb1 prepared   0 %          "
            "\r\x1b[Kweb1 running   0 %           "
            "\r\x1b[Ka line\n");
}

}  // namespace
}  // namespace postcopy
