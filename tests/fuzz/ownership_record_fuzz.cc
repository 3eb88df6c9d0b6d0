// What may lie in the state directory: a file of any content. What reads as a record says the same
// after it was written again; and a record that is written reads as it was, also where a byte of it
// was damaged.
#include <cstdint>
#include <cstdlib>

#include "server/ownership_record.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckComesBack(const OwnershipRecord& record, size_t damaged_at) {
  auto content = FormatOwnershipFile(record, 1);
  if (!content.has_value()) return;
  Require(content->size() <= kMaxOwnershipFileBytes &&
          content->size() % (2 * kOwnershipBlockBytes) == 0);
  const ParsedOwnership parsed = ParseOwnershipFile(*content);
  Require(parsed.whole && parsed.record == record && parsed.sequence == 1);
  Require(FormatOwnershipLine(record, ~uint64_t{0}).size() == kOwnershipLineBytes);
  (*content)[damaged_at % content->size()] ^= 1;
  Require(ParseOwnershipFile(*content).record == record);
}

// First byte: how long the VM's name is; the rest is the name, the peer's address and a path.
void CheckNames(std::string_view input) {
  if (input.empty()) return;
  const size_t name_bytes = static_cast<unsigned char>(input[0]);
  input.remove_prefix(1);
  OwnershipRecord record;
  record.vm = input.substr(0, name_bytes);
  record.peer = input.substr(record.vm.size());
  CheckComesBack(record, name_bytes * 31);
  record.memory = {{record.vm, record.peer, {1, 2}, 3, 4}};
  CheckComesBack(record, name_bytes * 37);
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const auto parsed = postcopy::ParseOwnershipFile(input);
  if (parsed.record.has_value()) postcopy::CheckComesBack(*parsed.record, size);
  const auto old = postcopy::ParseOldOwnershipRecord(input);
  if (old.has_value()) postcopy::CheckComesBack(*old, size);
  postcopy::CheckNames(input);
  return 0;
}
