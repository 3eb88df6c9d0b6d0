// Waits until one of several descriptors can be read.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>

namespace postcopy {

class PollSet {
 public:
  PollSet();
  ~PollSet();
  PollSet(const PollSet&) = delete;
  PollSet& operator=(const PollSet&) = delete;

  // The descriptor is borrowed. Returns its place in the set, counted from 0.
  size_t Add(int descriptor);
  size_t size() const;
  // Blocks until a descriptor can be read or is closed by its peer, `timeout` has passed (nothing:
  // never) or a signal has come; callers look and wait again. Tells by place what can be read.
  void Wait(std::optional<std::chrono::milliseconds> timeout);
  // REQUIRES: place < size(). What the last Wait() saw.
  bool readable(size_t place) const;

 private:
  struct Descriptors;
  std::unique_ptr<Descriptors> descriptors_;
};

}  // namespace postcopy
