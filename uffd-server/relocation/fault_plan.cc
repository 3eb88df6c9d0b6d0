#include "relocation/fault_plan.h"

#include <spdlog/spdlog.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace postcopy {
namespace {

// The first random-looking pages of a Linux guest are its unpacked kernel image, which nobody checks.
constexpr uint64_t kDefaultSkipPages = 20000;
constexpr std::chrono::seconds kLongestHold{60};
constexpr std::chrono::milliseconds kHoldPoll{5};

const std::set<std::string> kSteps = {"opened",    "held",         "taken",          "loaded",
                                      "fenced",    "recorded",  "handed-over",  "incoming",       "state-loaded",
                                      "owner-recorded", "resumed"};

}  // namespace

absl::StatusOr<FaultPlan> FaultPlan::Parse(const std::vector<std::string>& faults,
                                           const std::string& runtime_dir) {
  FaultPlan plan;
  plan.runtime_dir_ = runtime_dir;
  for (const std::string& fault : faults) {
    const size_t equals = fault.find('=');
    const std::string name = fault.substr(0, equals);
    const std::string value = equals == std::string::npos ? "" : fault.substr(equals + 1);
    uint64_t pages = kDefaultSkipPages;
    if (name == "corrupt-one-byte" && (value.empty() || absl::SimpleAtoi(value, &pages))) {
      plan.corrupt_after_pages_ = pages;
    } else if (uint32_t seconds; name == "delay-bulk" && absl::SimpleAtoi(value, &seconds)) {
      plan.bulk_delay_ = std::chrono::seconds(seconds);
    } else if (name == "hold-at" && kSteps.count(value) != 0) {
      absl::MutexLock lock(&plan.holds_->mutex);
      plan.holds_->steps.insert(value);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("fault ", fault,
                       ": not corrupt-one-byte[=PAGES], delay-bulk=SECONDS or hold-at=STEP"));
    }
  }
  return plan;
}

void FaultPlan::Reach(const std::string& step) const {
  {
    absl::MutexLock lock(&holds_->mutex);
    if (holds_->steps.erase(step) == 0) return;
  }
  const std::string path = absl::StrCat(runtime_dir_, "/held-", step);
  std::ofstream(path) << "remove this file to go on\n";
  spdlog::warn("fault plan: held at step {}, file {}", step, path);
  const auto deadline = std::chrono::steady_clock::now() + kLongestHold;
  std::error_code ignored;
  while (std::filesystem::exists(path, ignored) && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kHoldPoll);
  }
  std::filesystem::remove(path, ignored);
}

}  // namespace postcopy
