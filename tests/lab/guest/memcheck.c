/* memcheck MIB SEED PAUSE_US ORDER STATUS_FILE: fills MIB MiB of memory, then verifies and rewrites
 * every word of it for ever.
 *
 * A pass visits each page once (ORDER linear, or random: another permutation each pass), compares
 * each word with what the last pass wrote and writes the next generation. So a page that was lost,
 * stale, misplaced or wrong in any byte is counted, once for each of its words. Sleeps PAUSE_US
 * after each MiB so that the guest's server gets the processor.
 *
 * After the fill and after each pass STATUS_FILE is replaced (temporary name, then rename) by one
 * JSON object: passes, errors (words found wrong so far), mib, first_error_address (null, or offset
 * in the checked memory, in bytes, as hex text), seconds_last_pass. Never ends by itself. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "content.h"

enum { kPagesPerMib = (1 << 20) / LAB_PAGE_BYTES };

struct status {
  uint64_t passes, errors, mib, first_error;
  double seconds_last_pass;
};

static void publish(const char* path, const struct status* status) {
  char temporary[256], first[32] = "null";
  snprintf(temporary, sizeof temporary, "%s.new", path);
  if (status->errors) {
    snprintf(first, sizeof first, "\"0x%llx\"", (unsigned long long)status->first_error);
  }
  FILE* file = fopen(temporary, "w");
  if (!file) {
    fprintf(stderr, "memcheck: open %s: %s\n", temporary, strerror(errno));
    exit(1);
  }
  fprintf(file,
          "{\"passes\": %llu, \"errors\": %llu, \"mib\": %llu, \"first_error_address\": %s, "
          "\"seconds_last_pass\": %.3f}\n",
          (unsigned long long)status->passes, (unsigned long long)status->errors,
          (unsigned long long)status->mib, first, status->seconds_last_pass);
  if (fclose(file) != 0 || rename(temporary, path) != 0) {
    fprintf(stderr, "memcheck: replace %s: %s\n", path, strerror(errno));
    exit(1);
  }
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void fill_page(volatile uint64_t* words, uint64_t value) {
  for (size_t i = 0; i < LAB_PAGE_WORDS; ++i, value += kLabGolden) words[i] = value;
}

/* Counts into `status` the words of page `page` that differ from `expected` and writes `next`.
 * volatile: each word is really loaded, and loaded before it is overwritten. */
static void check_page(volatile uint64_t* words, uint64_t page, uint64_t expected, uint64_t next,
                       struct status* status) {
  for (size_t i = 0; i < LAB_PAGE_WORDS; ++i) {
    if (__builtin_expect(words[i] != expected, 0)) {
      if (status->errors++ == 0) status->first_error = page * LAB_PAGE_BYTES + i * 8;
    }
    words[i] = next;
    expected += kLabGolden;
    next += kLabGolden;
  }
}

/* Fisher-Yates; another order for each generation. */
static void shuffle(uint32_t* order, uint64_t pages, uint64_t generation) {
  for (uint64_t i = pages - 1; i > 0; --i) {
    const uint64_t j = lab_mix64(generation * kLabGolden + i) % (i + 1);
    const uint32_t swapped = order[i];
    order[i] = order[j];
    order[j] = swapped;
  }
}

int main(int argc, char** argv) {
  if (argc != 6) {
    fprintf(stderr, "usage: memcheck MIB SEED PAUSE_US linear|random STATUS_FILE\n");
    return 2;
  }
  struct status status = {.mib = strtoull(argv[1], NULL, 0)};
  const uint64_t seed = strtoull(argv[2], NULL, 0);
  const useconds_t pause_us = (useconds_t)strtoul(argv[3], NULL, 0);
  const int random_order = strcmp(argv[4], "random") == 0;
  const uint64_t pages = status.mib * kPagesPerMib;
  uint32_t* order = malloc(pages * sizeof *order);
  uint64_t* memory = mmap(NULL, pages * LAB_PAGE_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (!order || memory == MAP_FAILED) {
    fprintf(stderr, "memcheck: allocate %llu MiB: %s\n", (unsigned long long)status.mib,
            strerror(errno));
    return 1;
  }
  for (uint64_t page = 0; page < pages; ++page) {
    order[page] = (uint32_t)page;
    fill_page(memory + page * LAB_PAGE_WORDS, lab_page_word(seed, page, 0));
  }
  publish(argv[5], &status);
  for (uint64_t generation = 0;; ++generation) {
    const double start = now();
    if (random_order) shuffle(order, pages, generation);
    for (uint64_t i = 0; i < pages; ++i) {
      const uint64_t page = order[i];
      check_page(memory + page * LAB_PAGE_WORDS, page, lab_page_word(seed, page, generation),
                 lab_page_word(seed, page, generation + 1), &status);
      if (pause_us && i % kPagesPerMib == kPagesPerMib - 1) usleep(pause_us);
    }
    status.passes++;
    status.seconds_last_pass = now() - start;
    publish(argv[5], &status);
  }
}
