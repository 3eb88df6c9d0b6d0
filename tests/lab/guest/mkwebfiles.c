/* mkwebfiles DIRECTORY COUNT SEED: writes the files and downloads of a web site's COUNT
 * directories: DIRECTORY/N/cCLASS_FILE and DIRECTORY/N/dNUMBER, all numbers from 0.
 *
 * Runs once in the guest at boot. What is in them says web_content.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "web_content.h"

static void fail(const char* what, const char* path) {
  fprintf(stderr, "mkwebfiles: %s %s: %s\n", what, path, strerror(errno));
  exit(1);
}

static void write_file(const char* path, uint64_t key, uint32_t bytes) {
  static uint64_t words[1 << 17];
  for (uint32_t i = 0; i < (bytes + 7) / 8; ++i) words[i] = lab_web_word(key, i);
  const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd < 0 || write(fd, words, bytes) != (ssize_t)bytes || close(fd) != 0) fail("write", path);
}

int main(int argc, char** argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: mkwebfiles DIRECTORY COUNT SEED\n");
    return 2;
  }
  const uint32_t count = (uint32_t)strtoul(argv[2], NULL, 0);
  const uint64_t seed = strtoull(argv[3], NULL, 0);
  char path[256];
  for (uint32_t directory = 0; directory < count; ++directory) {
    snprintf(path, sizeof path, "%s/%u", argv[1], directory);
    if (mkdir(path, 0755) != 0) fail("make", path);
    for (uint32_t i = 0; i < LAB_WEB_CLASSES * LAB_WEB_CLASS_FILES; ++i) {
      const uint32_t file_class = i / LAB_WEB_CLASS_FILES, file = i % LAB_WEB_CLASS_FILES;
      snprintf(path, sizeof path, "%s/%u/c%u_%u", argv[1], directory, file_class, file);
      write_file(path, lab_web_file_key(seed, directory, file_class, file),
                 lab_web_file_bytes(file_class, file));
    }
    for (uint32_t number = 0; number < LAB_WEB_DOWNLOADS; ++number) {
      snprintf(path, sizeof path, "%s/%u/d%u", argv[1], directory, number);
      write_file(path, lab_web_download_key(seed, directory, number),
                 lab_web_download_bytes(number));
    }
  }
  return 0;
}
