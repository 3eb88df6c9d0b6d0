#include "delay_line.h"

namespace postcopy_lab {

DelayLine::DelayLine(std::chrono::nanoseconds delay, size_t capacity_bytes)
    : delay_(delay),
      capacity_bytes_(capacity_bytes),
      bytes_(std::make_unique_for_overwrite<std::byte[]>(capacity_bytes)) {}

std::optional<size_t> DelayLine::FreeOffset() const {
  if (packets_.empty()) return 0;  // the same bytes again and again stay in the processor's cache
  const size_t begin = packets_.front().offset;
  const size_t end = packets_.back().offset + packets_.back().size_bytes;
  if (end <= begin) {  // around the end: free is what lies between
    return begin - end >= kMaxPacketBytes ? std::optional(end) : std::nullopt;
  }
  if (capacity_bytes_ - end >= kMaxPacketBytes) return end;
  return begin >= kMaxPacketBytes ? std::optional<size_t>(0) : std::nullopt;
}

std::span<std::byte> DelayLine::Room() {
  const std::optional<size_t> offset = FreeOffset();
  if (!offset) return {};
  return {bytes_.get() + *offset, kMaxPacketBytes};
}

void DelayLine::Push(size_t size_bytes, Time now) {
  packets_.push_back({*FreeOffset(), size_bytes, now + delay_});
  held_bytes_ += size_bytes;
}

std::optional<DelayLine::Time> DelayLine::next_due() const {
  if (packets_.empty()) return std::nullopt;
  return packets_.front().due;
}

std::span<const std::byte> DelayLine::Front() const {
  return {bytes_.get() + packets_.front().offset, packets_.front().size_bytes};
}

void DelayLine::Pop() {
  held_bytes_ -= packets_.front().size_bytes;
  packets_.pop_front();
}

}  // namespace postcopy_lab
