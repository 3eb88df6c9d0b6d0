// What a VMM may give back as a keepsake: any bytes. A header that is accepted is valid and has one
// encoding; of page states of any content those are outstanding that can be claimed, or were given up.
#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "core/page_map.h"
#include "wire/keepsake_header.h"

namespace postcopy {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

void CheckHeader(std::span<const std::byte> input) {
  const auto header = wire::DecodeKeepsakeHeader(input);
  if (!header.ok()) return;
  Require(wire::Validate(*header).ok());
  const auto encoded = wire::EncodeKeepsakeHeader(*header);
  Require(encoded.size() <= input.size() && encoded.size() <= wire::kKeepsakeResumedOffset);
  Require(std::equal(encoded.begin(), encoded.end(), input.begin()));
}

void CheckStates(std::span<const std::byte> input) {
  if (input.empty()) return;
  const MemoryLayout layout{{{"ram", input.size() * kPageBytes}}};
  std::vector<std::atomic<uint8_t>> bytes(input.size());
  for (size_t i = 0; i < input.size(); ++i) bytes[i] = std::to_integer<uint8_t>(input[i]);
  PageMap map(layout, bytes);
  const uint64_t unit = input.size() % 512 == 0 ? 512 : 1;
  map.Recover(std::span(&unit, 1));
  uint64_t claimed = 0;
  for (uint64_t page = 0; page < input.size(); ++page) claimed += map.Claim({{0}, {page}});
  Require(claimed + map.poisoned_pages() == map.outstanding_pages());
}

}  // namespace
}  // namespace postcopy

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto input = std::as_bytes(std::span(data, size));
  postcopy::CheckHeader(input);
  postcopy::CheckStates(input);
  return 0;
}
