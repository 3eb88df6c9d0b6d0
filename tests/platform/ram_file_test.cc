#include "platform/ram_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <vector>

#include "gmock/gmock.h"
#include "platform/unique_fd.h"

namespace postcopy {
namespace {

using ::testing::Each;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kPages = 16;

class RamFileTest : public ::testing::Test {
 protected:
  RamFileTest() : file_(memfd_create("ram", MFD_CLOEXEC)) {
    EXPECT_EQ(ftruncate(file_.get(), kPages * kPage), 0);
  }
  uint64_t AllocatedBytes() {
    struct stat status {};
    fstat(file_.get(), &status);
    return static_cast<uint64_t>(status.st_blocks) * 512;
  }
  void WritePage(uint64_t page) {
    const std::vector<std::byte> content(kPage, std::byte{0x5a});
    ASSERT_EQ(WriteRamFile(file_.get(), page * kPage, content), 0);
  }

  UniqueFd file_;
};

TEST_F(RamFileTest, KnowsItsKindAndSize) {
  EXPECT_EQ(*QueryRamFileKind(file_.get()), RamFileKind::kTmpfs);
  EXPECT_EQ(*QueryRamFileSize(file_.get()), kPages * kPage);
  const UniqueFd elsewhere(open("/proc/self/exe", O_RDONLY));
  EXPECT_EQ(*QueryRamFileKind(elsewhere.get()), RamFileKind::kOtherFile);
  const UniqueFd device(open("/dev/null", O_RDWR));
  EXPECT_EQ(*QueryRamFileKind(device.get()), RamFileKind::kNotAFile);
  EXPECT_FALSE(QueryRamFileKind(-1).ok());
}

TEST_F(RamFileTest, TheSameFileIsKnownByAnyDescriptor) {
  const UniqueFd again(dup(file_.get()));
  const UniqueFd other(memfd_create("ram", MFD_CLOEXEC));
  EXPECT_TRUE(*IsSameRamFile(file_.get(), again.get()));
  EXPECT_FALSE(*IsSameRamFile(file_.get(), other.get()));
}

TEST_F(RamFileTest, DataIsFoundRunByRun) {
  WritePage(2);
  WritePage(3);
  WritePage(9);
  using Found = std::optional<FileExtent>;
  const uint64_t end = kPages * kPage;
  EXPECT_EQ(*FindRamFileData(file_.get(), 0, end), (Found{{2 * kPage, 2 * kPage}}));
  EXPECT_EQ(*FindRamFileData(file_.get(), 3 * kPage, end), (Found{{3 * kPage, kPage}}));
  EXPECT_EQ(*FindRamFileData(file_.get(), 4 * kPage, end), (Found{{9 * kPage, kPage}}));
  EXPECT_EQ(*FindRamFileData(file_.get(), 4 * kPage, 9 * kPage), Found());
  EXPECT_EQ(*FindRamFileData(file_.get(), 10 * kPage, end), Found());
  EXPECT_EQ(*FindRamFileData(file_.get(), 0, 3 * kPage), (Found{{2 * kPage, kPage}}));
  EXPECT_EQ(*FindRamFileData(file_.get(), end, end), Found());
}

TEST_F(RamFileTest, AllocatingKeepsContentAndSize) {
  WritePage(1);
  ASSERT_TRUE(AllocateRamFile(file_.get(), 0, 4 * kPage).ok());
  EXPECT_EQ(AllocatedBytes(), 4 * kPage);
  EXPECT_EQ(*QueryRamFileSize(file_.get()), kPages * kPage);
  std::array<std::byte, 2> content;
  EXPECT_EQ(ReadRamFile(file_.get(), kPage, content), 0);
  EXPECT_THAT(content, Each(std::byte{0x5a}));
}

TEST_F(RamFileTest, PunchingFreesAndReadsAsZero) {
  WritePage(1);
  WritePage(2);
  ASSERT_TRUE(PunchRamFile(file_.get(), kPage, kPage).ok());
  EXPECT_EQ(AllocatedBytes(), kPage);
  std::array<std::byte, kPage> content;
  EXPECT_EQ(ReadRamFile(file_.get(), kPage, content), 0);
  EXPECT_THAT(content, Each(std::byte{0}));
  EXPECT_EQ(AllocatedBytes(), kPage) << "reading a hole must not fill it";
}

TEST_F(RamFileTest, ReadingPastTheEndIsAnError) {
  std::array<std::byte, kPage> content;
  EXPECT_EQ(ReadRamFile(file_.get(), kPages * kPage - 1, content), ENODATA);
}

TEST_F(RamFileTest, FailuresNameTheRange) {
  const auto result = PunchRamFile(-1, 4096, 8192);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().message,
            "empty RAM file, 8192 bytes at offset 4096: Bad file descriptor");
}

}  // namespace
}  // namespace postcopy
