// What the visitors of a browse run have seen, page by page.
//
// Pure: time is an argument. What is good enough is not decided here (tests/lab/qos.py).
#ifndef POSTCOPY_LAB_LOAD_PAGE_LOG_H_
#define POSTCOPY_LAB_LOAD_PAGE_LOG_H_

#include <cstdint>
#include <nlohmann/json.hpp>

#include "timing_log.h"
#include "web_mix.h"

namespace postcopy_lab {

class PageLog {
 public:
  enum class Outcome { kFinished, kFailed, kUnfinished };

  // A page with all that it embeds. `bytes` are those of its bodies that came.
  void Add(const PageType& type, RealTime start, RealTime end, uint64_t bytes, Outcome outcome);

  // A list of objects: type, download (whether it is one), start_ms, duration_ms, bytes, outcome
  // (finished, failed, unfinished); in the order in which they were added.
  const nlohmann::json& ToJson() const { return pages_; }

 private:
  nlohmann::json pages_ = nlohmann::json::array();
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_LOAD_PAGE_LOG_H_
