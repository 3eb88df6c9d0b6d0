#include "platform/sealed_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "gmock/gmock.h"
#include "platform/duplicate_fd.h"

namespace postcopy {
namespace {

using testing::Each;
using testing::HasSubstr;

constexpr uint64_t kBytes = 3 * 4096;

TEST(SealedMemoryTest, TwoMappingsAreOneMemory) {
  auto made = SealedMemory::Make("test", kBytes);
  ASSERT_TRUE(made.ok()) << made.error().message;
  ASSERT_EQ(made->bytes().size(), kBytes);
  EXPECT_THAT(made->bytes(), Each(std::byte{0}));
  auto opened = SealedMemory::Open(std::move(*DuplicateFd(made->memfd())));
  ASSERT_TRUE(opened.ok()) << opened.error().message;
  made->bytes()[4097] = std::byte{7};
  EXPECT_EQ(opened->bytes()[4097], std::byte{7});
}

TEST(SealedMemoryTest, OutlivesTheMappingThatMadeIt) {
  UniqueFd kept;
  {
    auto made = SealedMemory::Make("test", kBytes);
    ASSERT_TRUE(made.ok());
    made->bytes()[0] = std::byte{7};
    kept = std::move(*DuplicateFd(made->memfd()));
  }
  auto opened = SealedMemory::Open(std::move(kept));
  ASSERT_TRUE(opened.ok());
  EXPECT_EQ(opened->bytes()[0], std::byte{7});
}

TEST(SealedMemoryTest, NobodyCanChangeItsSize) {
  auto made = SealedMemory::Make("test", kBytes);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(ftruncate(made->memfd().get(), 4096), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(ftruncate(made->memfd().get(), 2 * kBytes), -1);
}

TEST(SealedMemoryTest, MemoryThatCouldShrinkUnderItsReaderIsRefused) {
  UniqueFd open(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  ASSERT_EQ(ftruncate(open.get(), kBytes), 0);
  auto opened = SealedMemory::Open(std::move(open));
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(opened.error().message, HasSubstr("its size is not sealed"));
  EXPECT_FALSE(SealedMemory::Open(UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC))).ok());
}

TEST(SealedMemoryTest, HugePagesThatCouldBeTakenFromItsReaderAreRefused) {
  UniqueFd huge(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB));
  if (!huge.valid() || ftruncate(huge.get(), 2 << 20) != 0) {
    GTEST_SKIP() << "missing: huge pages of 2 MiB in this kernel";
  }
  ASSERT_EQ(fcntl(huge.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW), 0);
  auto opened = SealedMemory::Open(std::move(huge));
  ASSERT_FALSE(opened.ok());
  EXPECT_EQ(opened.error().code, ErrorCode::kInvalidArgument);
  EXPECT_THAT(opened.error().message, HasSubstr("it has huge pages"));
}

TEST(SealedMemoryTest, AnEmptyOneIsAnErrorAndNoCrash) {
  EXPECT_FALSE(SealedMemory::Make("test", 0).ok());
}

}  // namespace
}  // namespace postcopy
