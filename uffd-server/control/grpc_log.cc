#include "control/grpc_log.h"

#include <grpc/support/log.h>
#include <spdlog/spdlog.h>

#include <string_view>
#include <utility>

#include "absl/base/call_once.h"
#include "absl/strings/ascii.h"

namespace postcopy {
namespace {

thread_local std::string last_system_error;

void Log(gpr_log_func_args* line) {
  constexpr std::string_view kMark = "os_error:\"";
  const std::string_view text = line->message;
  if (const size_t mark = text.find(kMark); mark != std::string_view::npos) {
    const std::string_view cause = text.substr(mark + kMark.size());
    last_system_error = absl::AsciiStrToLower(std::string(cause.substr(0, cause.find('"'))));
  }
  spdlog::debug("grpc {}", text);
}

}  // namespace

void TakeGrpcLog() {
  static absl::once_flag once;
  absl::call_once(once, [] { gpr_set_log_function(Log); });
}

std::string TakeLastSystemError() { return std::exchange(last_system_error, {}); }

}  // namespace postcopy
