#include "platform/file_mappings.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gtest/gtest.h"
#include "platform/unique_fd.h"

namespace postcopy {
namespace {

constexpr uint64_t kPageBytes = 4096;

TEST(FileMappingsTest, AnotherProcessThatHasMappedAFileIsFound) {
  const UniqueFd ram(memfd_create("guest ram", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(ram.get(), 4 * kPageBytes), 0);
  const FileId id = *QueryFileId(ram.get());
  // This process does not count.
  void* const mine = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, ram.get(), 0);
  EXPECT_TRUE(FindMappings({id}, 0).empty());
  ASSERT_EQ(munmap(mine, kPageBytes), 0);

  int mapped[2];
  ASSERT_EQ(pipe(mapped), 0);
  const pid_t child = fork();
  if (child == 0) {
    mmap(nullptr, 2 * kPageBytes, PROT_READ, MAP_SHARED, ram.get(), kPageBytes);
    (void)!write(mapped[1], "m", 1);
    for (;;) pause();
  }
  char byte = 0;
  ASSERT_EQ(read(mapped[0], &byte, 1), 1);
  const auto found = FindMappings({id}, 0);
  EXPECT_TRUE(FindMappings({id}, child).empty());
  EXPECT_TRUE(FindMappings({{id.device, id.inode + 1}}, 0).empty());
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  for (const int end : mapped) close(end);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].pid, child);
  EXPECT_EQ(found[0].path, "/memfd:guest ram (deleted)");
  EXPECT_EQ(found[0].file_offset, kPageBytes);
  EXPECT_EQ(found[0].size_bytes, 2 * kPageBytes);
}

}  // namespace
}  // namespace postcopy
