// The table of what makes a VM impossible to relocate, decided from what its QEMU reports.
//
// Pure. Each row says when it applies, why, and what to do; docs/operations.md shows the same rows,
// and a test compares the two. What is about guest RAM, the guest's run state and QEMU's own
// migration blockers is decided in qemu_ram.h and qemu_inspect.h.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "vmm/qemu_inspect.h"

namespace postcopy {

enum class RefusedAt { kBoth, kSource, kDestination };

struct Refusal {
  RefusedAt at;
  const char* when;     // for the table of the documentation
  const char* why;
  const char* instead;  // what an operator does about it
  // The types of devices, objects and network backends that it is about, with blanks between; a
  // type that contains one of them counts. Empty: none.
  const char* type_parts;
  // Adds each other thing that it is about, e.g. "job mirror0 (mirror, running)". May be null.
  void (*find)(const QemuAnswers& answers, std::vector<std::string>& subjects);
};

const std::vector<Refusal>& Refusals();

// "source", "destination" or "both".
std::string_view EndName(RefusedAt at);

// Adds a sentence for each thing that a row is about, at the end that `waits` says: true for a QEMU
// that waits for a machine.
void AddRefusals(const QemuAnswers& answers, bool waits, std::vector<std::string>& blockers);

}  // namespace postcopy
