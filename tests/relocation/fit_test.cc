#include "relocation/fit.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace postcopy {
namespace {

using testing::HasSubstr;

VmmDescription Waiting() {
  VmmDescription vmm;
  vmm.pid = 7;
  vmm.machine_type = "pc-i440fx-7.2";
  vmm.vcpus = 2;
  vmm.devices = {"net0:virtio-net-pci"};
  vmm.state = GuestState::kWaitsForIncoming;
  return vmm;
}

Offer Matching() {
  Offer offer;
  offer.machine_type = "pc-i440fx-7.2";
  offer.vcpus = 2;
  offer.devices = {"net0:virtio-net-pci"};
  offer.ram.push_back({{"ram", 4096}, {}});
  return offer;
}

const MemoryLayout kLayout{{{"ram", 4096}}};

std::string Refusal(const Offer& offer, const VmmDescription& vmm, const MemoryLayout& layout) {
  const absl::Status status = CheckFit(offer, vmm, {}, layout);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  return std::string(status.message());
}

TEST(FitTest, EqualSidesFit) { EXPECT_TRUE(CheckFit(Matching(), Waiting(), {}, kLayout).ok()); }

TEST(FitTest, EveryDifferenceIsNamed) {
  VmmDescription other = Waiting();
  other.machine_type = "q35";
  other.vcpus = 4;
  other.devices = {"disk0:virtio-blk-pci"};
  const std::string refusal = Refusal(Matching(), other, {{{"ram", 8192}}});
  EXPECT_THAT(refusal, HasSubstr("machine type pc-i440fx-7.2 at the source and q35"));
  EXPECT_THAT(refusal, HasSubstr("2 vCPUs at the source and 4"));
  EXPECT_THAT(refusal, HasSubstr("devices at the source only: net0:virtio-net-pci"));
  EXPECT_THAT(refusal, HasSubstr("devices at the destination only: disk0:virtio-blk-pci"));
  EXPECT_THAT(refusal, HasSubstr("RAM block ram has 4096 bytes at the source and 8192"));
}

TEST(FitTest, WhatTheGuestSeesMustBeEqual) {
  Offer offer = Matching();
  offer.print = {{"device disk0: addr", "04.0"}};
  const MachinePrint other = {{"device disk0: addr", "05.0"}};
  EXPECT_THAT(std::string(CheckFit(offer, Waiting(), other, kLayout).message()),
              HasSubstr("device disk0: addr is 04.0 at the source and 05.0 at the destination"));
  EXPECT_TRUE(CheckFit(offer, Waiting(), offer.print, kLayout).ok());
  offer.print.clear();  // an older daemon tells none
  EXPECT_TRUE(CheckFit(offer, Waiting(), other, kLayout).ok());
}

TEST(FitTest, AllFindingsAreToldAtOnce) {
  VmmDescription vmm = Waiting();
  vmm.state = GuestState::kRunning;
  vmm.blockers = {"job mirror0", "dirty bitmap b0"};
  EXPECT_THAT(DestinationFindings(vmm, 7),
              testing::ElementsAre("job mirror0", "dirty bitmap b0", HasSubstr("-S -incoming")));
}

TEST(FitTest, BlockNamesMustBeEqual) {
  EXPECT_THAT(Refusal(Matching(), Waiting(), {{{"mem0", 4096}}}),
              HasSubstr("RAM block ram exists at the source only"));
}

TEST(FitTest, AMonitorOfAnotherProcessMeansAnUnhookedVmm) {
  const absl::Status status = CheckDestination(Waiting(), 8);
  EXPECT_THAT(std::string(status.message()), HasSubstr("runs without libpostcopy-preload.so"));
}

TEST(FitTest, ADestinationMustWait) {
  VmmDescription running = Waiting();
  running.state = GuestState::kRunning;
  running.state_text = "running";
  EXPECT_THAT(std::string(CheckDestination(running, 7).message()), HasSubstr("-incoming defer"));
  EXPECT_TRUE(CheckDestination(Waiting(), 7).ok());
}

TEST(FitTest, ASourceMustRunOrBePausedAndHaveNoBlocker) {
  VmmDescription vmm = Waiting();
  EXPECT_FALSE(CheckSource(vmm, 7).ok());
  vmm.state = GuestState::kPaused;
  EXPECT_TRUE(CheckSource(vmm, 7).ok());
  vmm.blockers = {"device vfio0 is a vfio-pci"};
  EXPECT_THAT(std::string(CheckSource(vmm, 7).message()), HasSubstr("vfio0"));
}

}  // namespace
}  // namespace postcopy
