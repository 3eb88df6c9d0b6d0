/* diskcheck FILE MIB SEED PAUSE_US STATUS_FILE STOP_FILE: writes MIB MiB of FILE, then verifies and
 * rewrites every block of it until STOP_FILE exists.
 * diskcheck verify FILE MIB SEED GENERATION: counts the words of FILE that are not of that generation,
 * prints how many, and exits with 1 if there are any. For the host, when the guest has stopped.
 *
 * memcheck.c for a disk: a pass visits each 4 KiB block once, in another order each pass, reads it past
 * the page cache (O_DIRECT), compares each word with what the last pass wrote and writes the next
 * generation. So a block that was lost, is stale, misplaced or torn is counted, once for each of its
 * words. Every 64 blocks what was written is flushed, and the program sleeps for PAUSE_US.
 *
 * After the first writing and after each pass STATUS_FILE is replaced by a JSON object with the members
 * of memcheck's; first_error_address is an offset in FILE. The stop is looked for after a pass: all
 * blocks are of generation `passes` then, flushed, and the exit status is 0. */
#define _GNU_SOURCE /* O_DIRECT */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "content.h"

enum { kBlocksPerMib = (1 << 20) / LAB_PAGE_BYTES, kBlocksPerFlush = 64 };

struct status {
  uint64_t passes, errors, mib, first_error;
  double seconds_last_pass;
};

static void require(int ok, const char* what, const char* path) {
  if (ok) return;
  fprintf(stderr, "diskcheck: %s %s: %s\n", what, path, strerror(errno));
  exit(1);
}

static void publish(const char* path, const struct status* status) {
  char temporary[256], first[32] = "null";
  snprintf(temporary, sizeof temporary, "%s.new", path);
  if (status->errors) {
    snprintf(first, sizeof first, "\"0x%llx\"", (unsigned long long)status->first_error);
  }
  FILE* file = fopen(temporary, "w");
  require(file != NULL, "open", temporary);
  fprintf(file,
          "{\"passes\": %llu, \"errors\": %llu, \"mib\": %llu, \"first_error_address\": %s, "
          "\"seconds_last_pass\": %.3f}\n",
          (unsigned long long)status->passes, (unsigned long long)status->errors,
          (unsigned long long)status->mib, first, status->seconds_last_pass);
  require(fclose(file) == 0 && rename(temporary, path) == 0, "replace", path);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void write_block(int file, const char* path, uint64_t* words, uint64_t block, uint64_t value) {
  for (size_t i = 0; i < LAB_PAGE_WORDS; ++i, value += kLabGolden) words[i] = value;
  require(pwrite(file, words, LAB_PAGE_BYTES, (off_t)(block * LAB_PAGE_BYTES)) == LAB_PAGE_BYTES,
          "write", path);
}

/* Counts into `status` the words of a block that differ from those that begin with `expected`. */
static void check_block(int file, const char* path, uint64_t* words, uint64_t block, uint64_t expected,
                        struct status* status) {
  require(pread(file, words, LAB_PAGE_BYTES, (off_t)(block * LAB_PAGE_BYTES)) == LAB_PAGE_BYTES,
          "read", path);
  for (size_t i = 0; i < LAB_PAGE_WORDS; ++i, expected += kLabGolden) {
    if (words[i] == expected) continue;
    if (status->errors++ == 0) status->first_error = block * LAB_PAGE_BYTES + i * 8;
  }
}

/* Fisher-Yates; another order for each generation. */
static void shuffle(uint32_t* order, uint64_t blocks, uint64_t generation) {
  for (uint64_t i = blocks - 1; i > 0; --i) {
    const uint64_t j = lab_mix64(generation * kLabGolden + i) % (i + 1);
    const uint32_t swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}

static int verify(const char* path, uint64_t mib, uint64_t seed, uint64_t generation) {
  struct status status = {.mib = mib};
  uint64_t words[LAB_PAGE_WORDS];
  const int file = open(path, O_RDONLY);
  require(file >= 0, "open", path);
  for (uint64_t block = 0; block < mib * kBlocksPerMib; ++block) {
    check_block(file, path, words, block, lab_page_word(seed, block, generation), &status);
  }
  printf("%llu\n", (unsigned long long)status.errors);
  return status.errors != 0;
}

int main(int argc, char** argv) {
  if (argc == 6 && strcmp(argv[1], "verify") == 0) {
    return verify(argv[2], strtoull(argv[3], NULL, 0), strtoull(argv[4], NULL, 0),
                  strtoull(argv[5], NULL, 0));
  }
  if (argc != 7) {
    fprintf(stderr, "usage: diskcheck FILE MIB SEED PAUSE_US STATUS_FILE STOP_FILE\n");
    return 2;
  }
  const char* path = argv[1];
  struct status status = {.mib = strtoull(argv[2], NULL, 0)};
  const uint64_t seed = strtoull(argv[3], NULL, 0);
  const useconds_t pause_us = (useconds_t)strtoul(argv[4], NULL, 0);
  const uint64_t blocks = status.mib * kBlocksPerMib;
  uint32_t* order = malloc(blocks * sizeof *order);
  uint64_t* words = aligned_alloc(LAB_PAGE_BYTES, LAB_PAGE_BYTES);
  require(order && words, "allocate for", path);
  const int file = open(path, O_RDWR | O_CREAT | O_DIRECT, 0600);
  require(file >= 0, "open", path);
  for (uint64_t block = 0; block < blocks; ++block) {
    order[block] = (uint32_t)block;
    write_block(file, path, words, block, lab_page_word(seed, block, 0));
  }
  require(fsync(file) == 0, "flush", path);
  publish(argv[5], &status);
  for (uint64_t generation = 0; access(argv[6], F_OK) != 0; ++generation) {
    const double start = now();
    shuffle(order, blocks, generation);
    for (uint64_t i = 0; i < blocks; ++i) {
      check_block(file, path, words, order[i], lab_page_word(seed, order[i], generation), &status);
      write_block(file, path, words, order[i], lab_page_word(seed, order[i], generation + 1));
      if (i % kBlocksPerFlush != kBlocksPerFlush - 1) continue;
      require(fdatasync(file) == 0, "flush", path);
      if (pause_us) usleep(pause_us);
    }
    require(fdatasync(file) == 0, "flush", path);
    status.passes++;
    status.seconds_last_pass = now() - start;
    publish(argv[5], &status);
  }
  return 0;
}
