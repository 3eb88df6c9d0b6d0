#include "engine/userfault_device.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>

namespace postcopy {

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
  uint64_t done = 0;
  while (done < content.size()) {
    const ssize_t written =
        pwrite(region.ram_file, content.data() + done, content.size() - done,
               static_cast<off_t>(region.file_offset + first.offset_bytes() + done));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    done += static_cast<uint64_t>(written);
  }
  return 0;
}

InstallResult UserfaultDevice::Continue(const MappedRegion& region, PageRange range) {
  return ContinuePages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

InstallResult UserfaultDevice::Zero(const MappedRegion& region, PageRange range) {
  return ZeroPages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

void UserfaultDevice::Wake(const MappedRegion& region, PageRange range) {
  WakePages(userfault_.get(), region.AddressOf(range.first), range.size_bytes());
}

Result<void> UserfaultDevice::Unregister(const MappedRegion& region) {
  return UnregisterFaults(userfault_.get(), region.address, region.size_bytes);
}

}  // namespace postcopy
