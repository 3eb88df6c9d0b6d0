#include "preload/guest_ram.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gmock/gmock.h"
#include "platform/unique_fd.h"

namespace postcopy::preload {
namespace {

using ::testing::HasSubstr;

constexpr uint64_t kLarge = kMinRamBytes;
constexpr uint64_t kSmall = 1 << 20;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

UniqueFd Tmpfs() { return UniqueFd(memfd_create("ram", MFD_CLOEXEC)); }
UniqueFd Elsewhere() { return UniqueFd(open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); }

Verdict Of(uint64_t size_bytes, int protection, int flags, int fd = -1) {
  return Recognise({0x100000, size_bytes, protection, flags, fd, 0});
}

TEST(GuestRamTest, AFileOnTmpfsMappedSharedOverAReservationIsGuestRam) {
  const UniqueFd file = Tmpfs();
  EXPECT_EQ(Of(kSmall, kReadWrite, MAP_FIXED | MAP_SHARED, file.get()), Verdict::kSharedFile);
  EXPECT_EQ(Of(kLarge, kReadWrite, MAP_FIXED | MAP_SHARED | MAP_NORESERVE, file.get()),
            Verdict::kSharedFile);
}

TEST(GuestRamTest, LargeAnonymousMemoryOverAReservationMayBeGuestRam) {
  EXPECT_EQ(Of(kLarge, kReadWrite, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS), Verdict::kAnonymous);
  EXPECT_EQ(Of(kSmall, kReadWrite, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS),
            Verdict::kNotGuestRam);
}

TEST(GuestRamTest, EveryOtherMappingIsLeftAlone) {
  const UniqueFd file = Tmpfs();
  EXPECT_EQ(Of(kLarge, kReadWrite, MAP_SHARED, file.get()), Verdict::kNotGuestRam);
  EXPECT_EQ(Of(kLarge, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS), Verdict::kNotGuestRam);
  EXPECT_EQ(Of(kLarge, PROT_READ, MAP_FIXED | MAP_SHARED, file.get()), Verdict::kNotGuestRam);
  EXPECT_EQ(Of(kLarge, kReadWrite | PROT_EXEC, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS),
            Verdict::kNotGuestRam);
  EXPECT_EQ(Of(kLarge, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS), Verdict::kNotGuestRam);
}

TEST(GuestRamTest, ADeviceIsNotGuestRam) {
  const UniqueFd device(open("/dev/zero", O_RDWR | O_CLOEXEC));
  EXPECT_EQ(Of(kLarge, kReadWrite, MAP_FIXED | MAP_SHARED, device.get()), Verdict::kNotGuestRam);
}

TEST(GuestRamTest, WhatCannotBeHookedSaysWhy) {
  const UniqueFd file = Tmpfs();
  const UniqueFd elsewhere = Elsewhere();
  TextBuffer buffer;

  const MmapCall private_file{0x100000, kLarge, kReadWrite, MAP_FIXED | MAP_PRIVATE, file.get(), 0};
  EXPECT_EQ(Recognise(private_file), Verdict::kUnsupported);
  EXPECT_THAT(std::string(Problem(private_file, buffer)), HasSubstr("add share=on"));

  const MmapCall no_file{0x100000, kLarge, kReadWrite, MAP_FIXED | MAP_SHARED | MAP_ANONYMOUS,
                         -1,       0};
  EXPECT_EQ(Recognise(no_file), Verdict::kUnsupported);
  EXPECT_THAT(std::string(Problem(no_file, buffer)), HasSubstr("shared memory without a file"));

  const MmapCall disk{0x100000, kLarge, kReadWrite, MAP_FIXED | MAP_SHARED, elsewhere.get(), 0};
  EXPECT_EQ(Recognise(disk), Verdict::kUnsupported);
  EXPECT_THAT(std::string(Problem(disk, buffer)), HasSubstr("neither on tmpfs nor on hugetlbfs"));
}

TEST(GuestRamTest, SmallPrivateFilesAreFirmware) {
  const UniqueFd file = Tmpfs();
  EXPECT_EQ(Of(kSmall, kReadWrite, MAP_FIXED | MAP_PRIVATE, file.get()), Verdict::kNotGuestRam);
}

}  // namespace
}  // namespace postcopy::preload
