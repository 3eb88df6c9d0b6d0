// FaultDevice over a userfaultfd, of this process or received from another one.
#pragma once

#include "engine/fault_device.h"
#include "platform/unique_fd.h"
#include "platform/waiter.h"

namespace postcopy {

class UserfaultDevice final : public FaultDevice {
 public:
  UserfaultDevice(UniqueFd userfault, Waiter waiter)
      : userfault_(std::move(userfault)), waiter_(std::move(waiter)) {}

  bool Wait() override;
  void WakeUp() override { waiter_.WakeUp(); }
  Result<size_t> ReadEvents(std::span<FaultEvent> events) override;
  InstallResult Copy(const MappedRegion& region, PageIndex first,
                     std::span<const std::byte> content) override;
  int WriteFile(const MappedRegion& region, PageIndex first,
                std::span<const std::byte> content) override;
  InstallResult Continue(const MappedRegion& region, PageRange range) override;
  InstallResult Zero(const MappedRegion& region, PageRange range) override;
  InstallResult Poison(const MappedRegion& region, PageRange range) override;
  bool CanPoison() override { return KernelCanPoison(); }
  void Wake(const MappedRegion& region, PageRange range) override;
  Result<void> Unregister(const MappedRegion& region) override;

 private:
  InstallResult ZeroHugePages(const MappedRegion& region, PageRange range);

  UniqueFd userfault_;
  Waiter waiter_;
};

}  // namespace postcopy
