// A trace of one relocation's faults as a text file: docs/trace-format.md.
//
// Pure: no I/O. Not responsible for recording (core/fault_trace.h) nor for where files lie
// (trace_folder.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/fault_trace.h"
#include "core/memory_layout.h"
#include "core/units.h"

namespace postcopy {

// Times count from when faults were first answered.
struct Trace {
  struct Block {
    std::string name;
    uint64_t pages = 0;
    uint64_t page_bytes = kPageBytes;  // of its backing
    friend bool operator==(const Block&, const Block&) = default;
  };
  struct Data {
    RegionId block;
    PageRange range;
    friend bool operator==(const Data&, const Data&) = default;
  };
  struct Fault {
    std::chrono::nanoseconds time{};
    PageAddress page;
    FaultKind kind = FaultKind::kAsked;
    std::optional<std::chrono::nanoseconds> wait;  // event read to wake, if known
    friend bool operator==(const Fault&, const Fault&) = default;
  };

  std::string vm;
  std::string session;
  std::vector<Block> blocks;
  std::vector<Data> data;
  std::optional<std::chrono::nanoseconds> resumed;  // the guest; nothing: it never ran here
  uint64_t left_out = 0;                            // faults that the recorder had no room for
  std::vector<Fault> faults;                        // by time

  friend bool operator==(const Trace&, const Trace&) = default;
};

// "asked", "joined", "present", "zero".
std::string_view Name(FaultKind kind);

// REQUIRES: what ParseTrace() gives out: names not empty, everything within its block.
std::string FormatTrace(const Trace& trace);

// kInvalidArgument, "line N: ...", unless `text` is what the document allows. Allocates no more
// than some times the text's length; sorts the faults.
absl::StatusOr<Trace> ParseTrace(std::string_view text);

}  // namespace postcopy
