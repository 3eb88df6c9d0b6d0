/* mkfiles DIRECTORY COUNT SEED CONTENT PROGRAM: writes files 0 … COUNT-1 of LAB_FILE_BYTES each into
 * DIRECTORY.
 *
 * Runs once in the guest at boot. CONTENT is random (content.h) or realistic (realistic.h), then with
 * machine code from PROGRAM. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "realistic.h"

/* The bytes of the file at `path`, or NULL with an error on stderr. */
static const char* map_file(const char* path, size_t* size) {
  struct stat status;
  const int fd = open(path, O_RDONLY);
  if (fd < 0 || fstat(fd, &status) != 0) {
    fprintf(stderr, "mkfiles: open %s: %s\n", path, strerror(errno));
    return NULL;
  }
  *size = (size_t)status.st_size;
  const void* bytes = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (bytes == MAP_FAILED) {
    fprintf(stderr, "mkfiles: map %s: %s\n", path, strerror(errno));
    return NULL;
  }
  return bytes;
}

int main(int argc, char** argv) {
  static uint64_t words[LAB_FILE_WORDS];
  if (argc != 6) {
    fprintf(stderr, "usage: mkfiles DIRECTORY COUNT SEED random|realistic PROGRAM\n");
    return 2;
  }
  const unsigned long count = strtoul(argv[2], NULL, 0);
  const uint64_t seed = strtoull(argv[3], NULL, 0);
  const int realistic = strcmp(argv[4], "realistic") == 0;
  size_t program_bytes = 0;
  const char* program = map_file(argv[5], &program_bytes);
  if (!program) return 1;
  for (unsigned long file = 0; file < count; ++file) {
    char path[256];
    snprintf(path, sizeof path, "%s/%lu", argv[1], file);
    if (realistic) {
      lab_fill_realistic_file(seed, file, program, program_bytes, words);
    } else {
      lab_fill_file(seed, file, words);
    }
    const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0 || write(fd, words, sizeof words) != (ssize_t)sizeof words || close(fd) != 0) {
      fprintf(stderr, "mkfiles: write %s: %s\n", path, strerror(errno));
      return 1;
    }
  }
  return 0;
}
