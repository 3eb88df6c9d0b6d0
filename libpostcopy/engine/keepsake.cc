#include "engine/keepsake.h"

#include <algorithm>
#include <utility>

namespace postcopy {
namespace {

using PageByte = std::atomic<uint8_t>;
// Two processes read and write them.
static_assert(PageByte::is_always_lock_free && sizeof(PageByte) == 1);
static_assert(std::atomic<int64_t>::is_always_lock_free && sizeof(std::atomic<int64_t>) == 8);

uint64_t SizeFor(const wire::KeepsakeHeader& header) {
  return wire::kKeepsakeHeaderBytes + wire::LayoutOf(header).size_bytes() / kPageBytes;
}

}  // namespace

Result<Keepsake> Keepsake::Make(wire::KeepsakeHeader header) {
  if (auto valid = wire::Validate(header); !valid.ok()) return valid.error();
  auto memory = SealedMemory::Make("postcopy-keepsake", SizeFor(header));
  if (!memory.ok()) return memory.error();
  const std::vector<std::byte> encoded = wire::EncodeKeepsakeHeader(header);
  std::copy(encoded.begin(), encoded.end(), memory->bytes().begin());
  return Keepsake(std::move(header), std::move(*memory));
}

Result<Keepsake> Keepsake::Open(UniqueFd memfd) {
  auto memory = SealedMemory::Open(std::move(memfd));
  if (!memory.ok()) return memory.error();
  auto header = wire::DecodeKeepsakeHeader(memory->bytes());
  if (!header.ok()) return header.error();
  if (memory->bytes().size() != SizeFor(*header)) {
    return Error{ErrorCode::kProtocol, "keepsake: it has " +
                                           std::to_string(memory->bytes().size()) + " bytes, " +
                                           std::to_string(SizeFor(*header)) + " are needed"};
  }
  return Keepsake(std::move(*header), std::move(*memory));
}

std::atomic<int64_t>& Keepsake::resumed() const {
  return reinterpret_cast<std::atomic<int64_t>&>(memory_.bytes()[wire::kKeepsakeResumedOffset]);
}

std::span<PageByte> Keepsake::page_bytes() const {
  const auto bytes = memory_.bytes().subspan(wire::kKeepsakeHeaderBytes);
  return {reinterpret_cast<PageByte*>(bytes.data()), bytes.size()};
}

}  // namespace postcopy
