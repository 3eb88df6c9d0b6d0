#include "trace/trace_folder.h"

#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "platform/durable_file.h"
#include "trace/trace_text.h"

namespace postcopy {
namespace {

absl::Status CannotTrace(const Error& cause) {
  return absl::UnavailableError(absl::StrCat("trace folder: ", cause.message));
}

}  // namespace

absl::StatusOr<TraceFolder> TraceFolder::Open(const std::string& folder) {
  const auto made = MakeDirectory(folder);
  if (!made.ok()) return CannotTrace(made.error());
  const std::string probe = folder + "/.probe";
  const auto written = WriteDurably(probe, "");
  if (!written.ok()) return CannotTrace(written.error());
  std::error_code ignored;
  std::filesystem::remove(probe, ignored);
  return TraceFolder(folder);
}

absl::Status TraceFolder::Write(const std::string& vm, const SessionId& session,
                                const MemoryLayout& layout, const std::vector<uint64_t>& page_bytes,
                                const FaultTrace& recorded) const {
  Trace trace;
  trace.vm = vm;
  trace.session = session.ToString();
  for (size_t i = 0; i < layout.regions.size(); ++i) {
    const Region& region = layout.regions[i];
    trace.blocks.push_back({region.name, region.count_pages(), page_bytes[i]});
  }
  for (const FaultTrace::Data& data : recorded.data()) {
    trace.data.push_back({data.region, data.range});
  }
  if (recorded.resumed().has_value()) trace.resumed = *recorded.resumed() - recorded.started();
  trace.left_out = recorded.left_out();
  for (const FaultRecord& fault : recorded.Faults()) {
    trace.faults.push_back(
        {fault.read_at - recorded.started(), fault.page, fault.kind, fault.wait});
  }
  const std::string path = absl::StrCat(folder_, "/", vm, "-", trace.session, ".trace");
  const auto written = WriteDurably(path, FormatTrace(trace));
  return written.ok() ? absl::OkStatus() : CannotTrace(written.error());
}

}  // namespace postcopy
