// What may lie in the state directory: a file of any content. What reads as a record says the same
// after it was written again; and a record that is written fits its sector and reads as it was.
#include <cstdlib>

#include "server/ownership_record.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckComesBack(const OwnershipRecord& record) {
  const auto content = FormatOwnershipRecord(record);
  if (!content.has_value()) return;
  Require(content->size() == kOwnershipRecordBytes && content->back() == '\n');
  Require(ParseOwnershipRecord(*content) == record);
  // Whatever becomes of the session later can be recorded as well.
  for (int mark = 0; mark <= static_cast<int>(OwnershipMark::kCommitted); ++mark) {
    for (const bool run : {false, true}) {
      OwnershipRecord later = record;
      later.mark = static_cast<OwnershipMark>(mark);
      later.run = run;
      Require(FormatOwnershipRecord(later).has_value());
    }
  }
}

// First byte: how long the VM's name is; the rest is the name and the peer's address.
void CheckNames(std::string_view input) {
  if (input.empty()) return;
  const size_t name_bytes = static_cast<unsigned char>(input[0]);
  input.remove_prefix(1);
  OwnershipRecord record;
  record.vm = input.substr(0, name_bytes);
  record.peer = input.substr(record.vm.size());
  CheckComesBack(record);
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto record = postcopy::ParseOwnershipRecord(input);
  if (record.has_value()) postcopy::CheckComesBack(*record);
  postcopy::CheckNames(input);
  return 0;
}
