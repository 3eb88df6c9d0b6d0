/* mkfiles DIRECTORY COUNT SEED: writes files 0 … COUNT-1 of LAB_FILE_BYTES each into DIRECTORY.
 *
 * Runs once in the guest at boot. What is in them says content.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "content.h"

int main(int argc, char** argv) {
  static uint64_t words[LAB_FILE_WORDS];
  if (argc != 4) {
    fprintf(stderr, "usage: mkfiles DIRECTORY COUNT SEED\n");
    return 2;
  }
  const unsigned long count = strtoul(argv[2], NULL, 0);
  const uint64_t seed = strtoull(argv[3], NULL, 0);
  for (unsigned long file = 0; file < count; ++file) {
    char path[256];
    snprintf(path, sizeof path, "%s/%lu", argv[1], file);
    lab_fill_file(seed, file, words);
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, words, sizeof words) != (ssize_t)sizeof words || close(fd) != 0) {
      fprintf(stderr, "mkfiles: write %s: %s\n", path, strerror(errno));
      return 1;
    }
  }
  return 0;
}
