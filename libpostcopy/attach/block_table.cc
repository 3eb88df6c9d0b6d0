#include "attach/block_table.h"

#include <unistd.h>

#include <algorithm>

namespace postcopy {
namespace {

template <size_t N>
void CopyText(std::array<char, N>& to, std::string_view from) {
  const size_t length = std::min(from.size(), N - 1);
  from.copy(to.data(), length);
  to[length] = '\0';
}

}  // namespace

BlockTable::AddOutcome BlockTable::Add(const NewBlock& block) {
  const uint64_t end = block.address + block.size_bytes;
  for (const Slot& slot : slots_) {
    if (StateIn(slot.state.load(std::memory_order_acquire)) != kLive) continue;
    const uint64_t slot_address = slot.address.load(std::memory_order_relaxed);
    const uint64_t slot_bytes = slot.size_bytes.load(std::memory_order_relaxed);
    const bool smaller = block.size_bytes < slot_bytes;
    if (smaller && slot_address <= block.address && end <= slot_address + slot_bytes) {
      return AddOutcome::kAlreadyThere;
    }
  }
  RemoveOverlapping(block.address, block.size_bytes);
  for (Slot& slot : slots_) {
    uint64_t expected = kFree;
    if (!slot.state.compare_exchange_strong(expected, kClaimed, std::memory_order_acquire)) {
      continue;
    }
    slot.address.store(block.address, std::memory_order_relaxed);
    slot.size_bytes.store(block.size_bytes, std::memory_order_relaxed);
    slot.id = last_id_.fetch_add(1, std::memory_order_relaxed) + 1;
    slot.file_offset = block.file_offset;
    slot.ram_file = block.ram_file;
    slot.kind = block.kind;
    CopyText(slot.name, block.name);
    CopyText(slot.path, block.path);
    slot.state.store(WithId(kLive, slot.id), std::memory_order_release);
    changes_.fetch_add(1, std::memory_order_release);
    return AddOutcome::kAdded;
  }
  return AddOutcome::kFull;
}

bool BlockTable::RemoveOverlapping(uint64_t address, uint64_t size_bytes) {
  bool removed = false;
  for (Slot& slot : slots_) {
    uint64_t expected = slot.state.load(std::memory_order_acquire);
    if (StateIn(expected) != kLive) continue;
    const uint64_t slot_address = slot.address.load(std::memory_order_relaxed);
    const uint64_t slot_bytes = slot.size_bytes.load(std::memory_order_relaxed);
    if (address + size_bytes <= slot_address || slot_address + slot_bytes <= address) continue;
    // Fails where it was removed and the slot got another block meanwhile, which was not looked at.
    const uint64_t retired = expected - kLive + kRetired;
    if (slot.state.compare_exchange_strong(expected, retired, std::memory_order_acq_rel)) {
      removed = true;
    }
  }
  if (removed) changes_.fetch_add(1, std::memory_order_release);
  return removed;
}

bool BlockTable::SetProblem(std::string_view text) {
  int expected = 0;
  if (!problem_state_.compare_exchange_strong(expected, 1, std::memory_order_relaxed)) return false;
  CopyText(problem_, text);
  problem_state_.store(2, std::memory_order_release);
  changes_.fetch_add(1, std::memory_order_release);
  return true;
}

BlockTable::Snapshot BlockTable::Collect() {
  Snapshot snapshot;
  snapshot.changes = CountChanges();
  for (Slot& slot : slots_) {
    const State state = StateIn(slot.state.load(std::memory_order_acquire));
    if (state == kRetired) {
      if (slot.kind == wire::BlockKind::kSharedFile) close(slot.ram_file);
      slot.state.store(kFree, std::memory_order_release);
    } else if (state == kLive) {
      Block& block = snapshot.blocks.emplace_back();
      block.id = slot.id;
      block.block.address = slot.address.load(std::memory_order_relaxed);
      block.block.size_bytes = slot.size_bytes.load(std::memory_order_relaxed);
      block.block.file_offset = slot.file_offset;
      block.block.kind = slot.kind;
      block.block.name = slot.name.data();
      block.block.path = slot.path.data();
      if (slot.kind == wire::BlockKind::kSharedFile) block.ram_file = slot.ram_file;
    }
  }
  std::sort(snapshot.blocks.begin(), snapshot.blocks.end(),
            [](const Block& a, const Block& b) { return a.id < b.id; });
  if (problem_state_.load(std::memory_order_acquire) == 2) snapshot.problem = problem_.data();
  return snapshot;
}

void BlockTable::CloseAll() {
  for (Slot& slot : slots_) {
    const State state = StateIn(slot.state.exchange(kFree, std::memory_order_acq_rel));
    if ((state == kLive || state == kRetired) && slot.kind == wire::BlockKind::kSharedFile) {
      close(slot.ram_file);
    }
  }
}

}  // namespace postcopy
