#include "tests/lab/load/file_choice.h"

#include <gtest/gtest.h>

#include <map>

#include "web_content.h"

namespace postcopy_lab {
namespace {

constexpr int kDraws = 200'000;

TEST(FileChoice, ClassesDirectoriesAndFilesHaveTheirShares) {
  const FileChoice choice(16);
  Random random(7);
  std::map<uint32_t, double> classes, directories, files;
  for (int i = 0; i < kDraws; ++i) {
    const StaticFile drawn = choice.DrawFile(random);
    classes[drawn.file_class] += 1.0 / kDraws;
    directories[drawn.directory] += 1.0 / kDraws;
    files[drawn.file] += 1.0 / kDraws;
  }
  const double classes_published[] = {0.35, 0.50, 0.14, 0.01};
  for (uint32_t i = 0; i < 4; ++i) EXPECT_NEAR(classes[i], classes_published[i], 0.004) << i;
  const double files_published[] = {0.039, 0.059, 0.088, 0.177, 0.353, 0.118, 0.071, 0.050, 0.044};
  for (uint32_t i = 0; i < 9; ++i) EXPECT_NEAR(files[i], files_published[i], 0.004) << i;
  ASSERT_EQ(directories.size(), 16u);
  EXPECT_NEAR(directories[0] / directories[1], 2, 0.1);
  EXPECT_NEAR(directories[0] / directories[9], 10, 0.7);
}

TEST(FileChoice, DownloadsStayWithinWhatThereIs) {
  const FileChoice choice(2);
  Random random(1);
  std::map<uint32_t, double> numbers;
  for (int i = 0; i < kDraws; ++i) {
    const Download drawn = choice.DrawDownload(random);
    EXPECT_LT(drawn.directory, 2u);
    numbers[drawn.number] += 1.0 / kDraws;
  }
  ASSERT_EQ(numbers.size(), size_t{LAB_WEB_DOWNLOADS});
  EXPECT_NEAR(numbers[0] + numbers[1] + numbers[2] + numbers[3] + numbers[4],
              0.1366 / (0.1366 + 0.1261), 0.005);
}

TEST(FileChoice, TheSameSeedAsksForTheSameFiles) {
  const FileChoice choice(5);
  Random first(3), second(3), other(4);
  int differ = 0;
  for (int i = 0; i < 100; ++i) {
    const StaticFile a = choice.DrawFile(first), b = choice.DrawFile(second);
    const StaticFile c = choice.DrawFile(other);
    EXPECT_EQ(a.directory, b.directory);
    EXPECT_EQ(a.file, b.file);
    differ += a.file != c.file;
  }
  EXPECT_GT(differ, 10);
}

TEST(FileChoice, SizesOfFilesAreNineAClass) {
  EXPECT_EQ(lab_web_file_bytes(0, 0), 102u);
  EXPECT_EQ(lab_web_file_bytes(0, 8), 921u);
  EXPECT_EQ(lab_web_file_bytes(1, 0), 1024u);
  EXPECT_EQ(lab_web_file_bytes(3, 8), 921600u);
  uint64_t directory_bytes = 0;
  for (uint32_t i = 0; i < 36; ++i) directory_bytes += lab_web_file_bytes(i / 9, i % 9);
  EXPECT_EQ(directory_bytes, 5119484u);
}

}  // namespace
}  // namespace postcopy_lab
