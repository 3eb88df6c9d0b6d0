#include "engine/userfault_device.h"

#include <chrono>

#include "platform/ram_file.h"

namespace postcopy {
namespace {

// The kernel has no ZEROPAGE for huge pages. Never written, so that it costs no memory.
std::byte zeros[kMaxHugePageBytes];

}  // namespace

bool UserfaultDevice::Wait() {
  return waiter_.Wait(userfault_.get(), std::chrono::milliseconds(-1)) == Waiter::Woken::kReadable;
}

Result<size_t> UserfaultDevice::ReadEvents(std::span<FaultEvent> events) {
  return ReadFaultEvents(userfault_.get(), events);
}

InstallResult UserfaultDevice::Copy(const MappedRegion& region, PageIndex first,
                                    std::span<const std::byte> content) {
  return CopyPages(userfault_.get(), region.AddressOf(first), content.data(), content.size());
}

int UserfaultDevice::WriteFile(const MappedRegion& region, PageIndex first,
                               std::span<const std::byte> content) {
  return WriteRamFile(region.ram_file, region.file_offset + first.offset_bytes(), content);
}

InstallResult UserfaultDevice::Continue(const MappedRegion& region, PageRange range) {
  return ContinuePages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

InstallResult UserfaultDevice::Zero(const MappedRegion& region, PageRange range) {
  if (region.has_huge_pages()) return ZeroHugePages(region, range);
  return ZeroPages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

InstallResult UserfaultDevice::ZeroHugePages(const MappedRegion& region, PageRange range) {
  InstallResult all{InstallOutcome::kInstalled, 0, 0};
  while (all.outcome == InstallOutcome::kInstalled && all.done_bytes < range.size_bytes()) {
    const InstallResult one = CopyPages(
        userfault_.get(), region.AddressOf(range.first) + all.done_bytes, zeros, region.page_bytes);
    all = {one.outcome, all.done_bytes + one.done_bytes, one.error};
  }
  return all;
}

InstallResult UserfaultDevice::Poison(const MappedRegion& region, PageRange range) {
  return PoisonPages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

void UserfaultDevice::Wake(const MappedRegion& region, PageRange range) {
  WakePages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

Result<void> UserfaultDevice::Unregister(const MappedRegion& region) {
  return UnregisterFaults(userfault_.get(), region.address, region.size_bytes);
}

}  // namespace postcopy
