// A trace of any content. What is accepted lies within its blocks and says the same after it was
// written again; what is not, is refused with a line's number.
#include <cstdlib>

#include "trace/trace_text.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void Read(std::string_view text) {
  const auto trace = ParseTrace(text);
  if (!trace.ok()) {
    Require(absl::IsInvalidArgument(trace.status()));
    Require(std::string(trace.status().message()).starts_with("line "));
    return;
  }
  for (const Trace::Data& data : trace->data) {
    Require(data.range.first.value + data.range.count_pages <=
            trace->blocks.at(data.block.value).pages);
  }
  for (const Trace::Fault& fault : trace->faults) {
    Require(fault.page.page.value < trace->blocks.at(fault.page.region.value).pages);
  }
  const auto again = ParseTrace(FormatTrace(*trace));
  Require(again.ok() && *again == *trace);
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postcopy::Read(std::string_view(reinterpret_cast<const char*>(data), size));
  return 0;
}
