#include "page_log.h"

#include <chrono>

namespace postcopy_lab {
namespace {

const char* NameOf(PageLog::Outcome outcome) {
  switch (outcome) {
    case PageLog::Outcome::kFinished:
      return "finished";
    case PageLog::Outcome::kFailed:
      return "failed";
    case PageLog::Outcome::kUnfinished:
      return "unfinished";
  }
  return "";
}

}  // namespace

void PageLog::Add(const PageType& type, RealTime start, RealTime end, uint64_t bytes,
                  Outcome outcome) {
  using Ms = std::chrono::duration<double, std::milli>;
  pages_.push_back({{"type", type.name},
                    {"download", type.kind == PageType::Kind::kDownload},
                    {"start_ms", Ms(start.time_since_epoch()).count()},
                    {"duration_ms", Ms(end - start).count()},
                    {"bytes", bytes},
                    {"outcome", NameOf(outcome)}});
}

}  // namespace postcopy_lab
