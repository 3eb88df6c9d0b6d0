// Packets on their way over a link of a given length: each comes out a fixed time after it was put
// in, in the same order.
//
// Pure: time is an argument, and nothing is read or sent. Not responsible for what a packet is.
#ifndef POSTCOPY_LAB_RELAY_DELAY_LINE_H_
#define POSTCOPY_LAB_RELAY_DELAY_LINE_H_

#include <chrono>
#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>

namespace postcopy_lab {

// One direction of a link; one thread. Holds at most `capacity_bytes` of packets, in one piece of
// memory whose pages are touched only as they are needed, and 24 bytes more for each packet.
class DelayLine {
 public:
  using Time = std::chrono::steady_clock::time_point;

  // An IP packet at its longest, and the virtio_net_hdr before it.
  static constexpr size_t kMaxPacketBytes = 65535 + 10;

  // REQUIRES: capacity_bytes >= kMaxPacketBytes.
  DelayLine(std::chrono::nanoseconds delay, size_t capacity_bytes);

  // Where the next packet's bytes are to be written: kMaxPacketBytes, or nothing while the line is
  // too full for such a packet. Valid until the next call of Push or Pop.
  std::span<std::byte> Room();
  // The packet whose first `size_bytes` bytes were written into Room() at `now` is on its way.
  // REQUIRES: Room() was not empty, 0 < size_bytes <= kMaxPacketBytes, `now` is not before that of
  // the last call.
  void Push(size_t size_bytes, Time now);

  // When the oldest packet comes out; nothing if there is none.
  std::optional<Time> next_due() const;
  // The oldest packet. Valid until Pop. REQUIRES: there is one.
  std::span<const std::byte> Front() const;
  void Pop();

  size_t held_bytes() const { return held_bytes_; }

 private:
  struct Packet {
    size_t offset;
    size_t size_bytes;
    Time due;
  };
  std::optional<size_t> FreeOffset() const;

  const std::chrono::nanoseconds delay_;
  const size_t capacity_bytes_;
  const std::unique_ptr<std::byte[]> bytes_;
  std::deque<Packet> packets_;  // by due time; their bytes lie one after the other, around the end
  size_t held_bytes_ = 0;
};

}  // namespace postcopy_lab

#endif  // POSTCOPY_LAB_RELAY_DELAY_LINE_H_
