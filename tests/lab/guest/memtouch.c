/* memtouch MIB SEED ORDER WRITES PAUSE_US STATUS_FILE: touches memory and times each touch, for ever.
 *
 * Fills MIB MiB, then touches one word of a page after the other: ORDER linear, random, or zipf (page
 * ranks scattered over the memory, popularity 1/rank); WRITES in 100 of the touches write. Sleeps
 * PAUSE_US after each 1,024 touches so that the guest's server gets the processor.
 *
 * What a wait is, and what STATUS_FILE says, which is replaced every 100 ms, says touch_times.h. Never
 * ends by itself. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "content.h"
#include "touch_times.h"

enum { kPagesPerMib = (1 << 20) / LAB_PAGE_BYTES };

/* The page of touch `number`. Zipf with exponent 1, by inversion of the continuous distribution. */
static uint64_t page_of(const char* order, uint64_t number, uint64_t pages) {
  const uint64_t random = lab_mix64(number * kLabGolden + 1);
  switch (order[0]) {
    case 'l': return number % pages;
    case 'z': {
      const double share = (double)(random >> 11) * 0x1p-53;
      const uint64_t rank = (uint64_t)(exp(share * log((double)pages)) - 1.0);
      return lab_mix64(rank) % pages;
    }
    default: return random % pages;
  }
}

int main(int argc, char** argv) {
  if (argc != 7) {
    fprintf(stderr, "usage: memtouch MIB SEED linear|random|zipf WRITES PAUSE_US STATUS_FILE\n");
    return 2;
  }
  const uint64_t pages = strtoull(argv[1], NULL, 0) * kPagesPerMib;
  const uint64_t seed = strtoull(argv[2], NULL, 0);
  const uint64_t writes = strtoull(argv[4], NULL, 0);
  const useconds_t pause_us = (useconds_t)strtoul(argv[5], NULL, 0);
  volatile uint64_t* memory = mmap(NULL, pages * LAB_PAGE_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "memtouch: allocate %s MiB: %s\n", argv[1], strerror(errno));
    return 1;
  }
  for (uint64_t word = 0; word < pages * LAB_PAGE_WORDS; ++word) {
    memory[word] = lab_mix64(seed + word);
  }
  static struct touch_times times;
  times.begun_ns = now_ns();
  uint64_t published = 0;
  for (;;) {
    const uint64_t touch = times.touches;
    const uint64_t at =
        page_of(argv[3], touch, pages) * LAB_PAGE_WORDS + lab_mix64(touch) % LAB_PAGE_WORDS;
    const int write = lab_mix64(touch ^ seed) % 100 < writes;
    const uint64_t before = now_ns();
    if (write) {
      memory[at] = touch;
    } else {
      (void)memory[at];
    }
    const uint64_t after = now_ns();
    touch_times_add(&times, before, after);
    if (touch % 1024 == 1023) {
      if (pause_us) usleep(pause_us);
      if (after - published > 100000000u) {
        touch_times_publish(&times, argv[6], "");
        published = after;
      }
    }
  }
}
